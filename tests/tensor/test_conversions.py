"""To and from every library: values, shared memory, and no silent loss of a gradient."""

import importlib.util
import os

import numpy as np
import pytest

from ember_keras import ops
from ember_keras.ops import EmberTensor
from ember_keras.ops.tensor import libraries
from ember_keras.ops.tensor.libraries import LIBRARIES, library

BACKEND = os.environ["KERAS_BACKEND"]
INSTALLED = [
    name for name in LIBRARIES if importlib.util.find_spec("mlx.core" if name == "mlx" else name)
]
DTYPES = ["float32", "float16", "bfloat16", "int8", "int32", "int64", "uint8", "bool", "complex64"]


def aligned(shape=(4, 16), dtype="float32"):
    """A writeable array on memory aligned to 64 bytes, which every library can share."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.zeros(count + 64, "uint8")
    start = -buffer.ctypes.data % 64
    array = buffer[start : start + count].view(dtype).reshape(shape)
    array[:] = np.arange(array.size).reshape(shape)
    return array


def shares(x, y):
    """Whether two tensors of any library lie on the same memory."""
    views = []
    for item in (x, y):
        name = type(item).__module__.split(".")[0].replace("jaxlib", "jax")
        views.append(library(name).to_numpy(item))
    return np.shares_memory(*views)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(name, dtype):
    if (BACKEND, dtype) == ("jax", "int64"):
        pytest.skip("JAX runs without 64-bit types")
    x = ops.asarray([[1, 0, 3], [4, 5, 6]], dtype=dtype)
    y = x.to(name)
    expected = "int32" if (name, dtype) == ("jax", "int64") else dtype
    got = getattr(y.dtype, "name", str(y.dtype).rpartition(".")[2])
    assert got in (expected, f"{expected}_")
    back = EmberTensor.from_(y)
    assert back.shape == (2, 3)
    np.testing.assert_array_equal(back.astype("complex64").numpy(), x.astype("complex64").numpy())


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("shape", [(), (0, 2)])
def test_no_dimension_and_no_element(name, shape):
    x = ops.ones(shape)
    assert tuple(x.to(name).shape) == shape
    assert EmberTensor.from_(x.to(name)).shape == shape


# MLX copies what comes in, and does not align its memory as JAX and TensorFlow need it.
SHARED = [name for name in INSTALLED if BACKEND == name or "mlx" not in (BACKEND, name)]


@pytest.mark.parametrize("name", SHARED)
def test_memory_is_shared_going_out(name):
    x = ops.asarray(aligned())
    assert shares(x.to(name), x.value)


@pytest.mark.parametrize("name", SHARED)
def test_memory_is_shared_coming_in(name):
    y = library(name).from_numpy(aligned())
    assert shares(EmberTensor.from_(y).value, y)


@pytest.mark.skipif(BACKEND not in ("mlx", "numpy", "torch"), reason="no sharing promised")
@pytest.mark.skipif("mlx" not in INSTALLED, reason="mlx is not installed")
def test_mlx_shares_with_numpy_and_torch():
    y = library("mlx").from_numpy(aligned())
    x = EmberTensor.from_(y)
    assert shares(x.value, y) and shares(x.to("numpy"), y)
    assert BACKEND != "mlx" or "torch" not in INSTALLED or shares(x.to("torch"), y)


def test_own_library_is_the_tensor_itself():
    x = ops.ones((2,))
    assert BACKEND == "numpy" or x.to(BACKEND) is x.value
    assert EmberTensor.from_(x.value).value is x.value
    assert ops.asarray(x).value is x.value


@pytest.mark.parametrize("offset", [1, 3])
def test_memory_that_is_not_aligned_or_not_compact_is_copied_where_needed(offset):
    array = aligned((8, 16))
    for view in (array.ravel()[offset:], array.T, array[::-1], array[:, ::2]):
        x = ops.asarray(view)
        np.testing.assert_array_equal((x + x).numpy(), view + view)
        for name in INSTALLED:
            y = EmberTensor.from_(x.to(name))
            np.testing.assert_array_equal((y * 2).numpy(), view * 2)


def test_numpy_view_is_read_only_and_shared():
    x = ops.asarray(aligned())
    for view in (x.numpy(), np.asarray(x)):
        assert not view.flags.writeable and shares(view, x.value)
    assert np.array(x).flags.writeable and not shares(np.array(x), x.value)
    assert np.asarray(x, dtype="float64").dtype == "float64"
    with pytest.raises(ValueError, match="copy=False"):
        np.array(x, dtype="float64", copy=False)
    assert np.sum(x) == np.sum(x.numpy())


def test_asarray_copy():
    array = aligned()
    assert not shares(ops.asarray(array, copy=True).value, array)
    x = ops.asarray(array)
    assert not shares(ops.asarray(x, copy=True).value, x.value)
    assert ops.asarray(x, copy=False).value is x.value
    with pytest.raises(ValueError, match="copy=False"):
        ops.asarray(x, dtype="int32", copy=False)
    if BACKEND == "mlx":
        with pytest.raises(ValueError, match="only take as a copy"):
            ops.asarray(array, copy=False)
    else:
        assert shares(ops.asarray(array, copy=False).value, array)


def test_dlpack():
    x = ops.asarray(aligned())
    assert x.__dlpack_device__()[0] in (1, 8)
    y = np.from_dlpack(x)
    np.testing.assert_array_equal(y, x.numpy())
    assert shares(y, x.value)
    assert ops.from_dlpack(y).shape == x.shape
    with pytest.raises(TypeError, match="__dlpack__"):
        ops.from_dlpack([1, 2])


def test_from_numbers_and_nests():
    assert ops.asarray(1).dtype == "int32" and ops.asarray(1.0).dtype == "float32"
    assert ops.asarray(True).dtype == "bool" and ops.asarray([[1, 2]]).shape == (1, 2)
    row = ops.asarray([1.0, 2.0])
    assert ops.asarray([row, row]).numpy().tolist() == [[1, 2], [1, 2]]
    assert ops.asarray([row[0], 5.0]).numpy().tolist() == [1, 5]


def test_unknown_and_missing_libraries():
    with pytest.raises(ValueError, match="Expected one of numpy, torch"):
        ops.ones((2,)).to("cupy")
    with pytest.raises(TypeError, match="asarray"):
        EmberTensor.from_([1.0])


def test_a_missing_library_is_named(monkeypatch):
    def gone(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(libraries, "_modules", {})
    monkeypatch.setattr(libraries.importlib, "import_module", gone)
    with pytest.raises(ValueError, match=r"ember-keras\[torch\]"):
        libraries.library("torch")


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX narrows 64-bit integers")
def test_integers_that_do_not_fit_are_refused():
    assert ops.asarray(np.array([2**31 - 1])).dtype == "int32"
    with pytest.raises(ValueError, match="JAX_ENABLE_X64"):
        ops.asarray(np.array([2**31]))


@pytest.mark.skipif(BACKEND == "torch" or "torch" not in INSTALLED, reason="torch is a stranger")
def test_a_foreign_gradient_is_not_lost():
    import torch

    x = torch.ones(2, requires_grad=True)
    for call in (ops.asarray, EmberTensor.from_, ops.from_dlpack):
        with pytest.raises(ValueError, match=r"requires a gradient.*detach"):
            call(x)
    assert ops.asarray(x.detach()).shape == (2,)
