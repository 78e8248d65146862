"""The functions of `ember_keras.backend`: the same on every backend, and the table is true."""

import ast
import importlib.util
import inspect
import types
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import ember_keras as ek
from ember_keras import backend
from ember_keras.config import environment

FOLDER = Path(importlib.util.find_spec("ember_keras.backend").origin).parent


def public(name):
    """Return the public functions of a backend module, name -> argument names, from its source."""
    tree = ast.parse((FOLDER / f"_{name}.py").read_text(encoding="utf-8"))
    return {
        node.name: [argument.arg for argument in node.args.args]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


@pytest.mark.parametrize("name", environment.BACKENDS)
def test_modules_have_the_same_functions(name):
    assert public(name) == public("numpy")
    assert sorted(public(name)) == sorted(backend.FUNCTIONS)


def test_every_function_is_documented():
    for name in backend.FUNCTIONS:
        assert inspect.getdoc(getattr(backend, name))
        assert f"`{name}(" in backend.__doc__


def test_unknown_attribute_names_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean 'to_numpy'"):
        backend.to_nump  # noqa: B018


def test_name():
    assert backend.name() == keras.backend.backend()


def test_installed():
    found = backend.installed()
    assert tuple(found) == environment.BACKENDS
    assert found[backend.name()].usable
    assert found[backend.name()].version[0].isdigit()
    for entry in found.values():
        assert entry.usable == (entry.reason == "")
        assert entry.usable or "pip install 'ember-keras[" in entry.reason


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "bool"])
@pytest.mark.parametrize("shape", [(3, 4), (5,), (), (0, 2)])
def test_writable(shape, dtype):
    array, finish = backend.writable(shape, dtype)
    assert array.shape == shape
    assert array.dtype.name == dtype
    array[...] = np.arange(array.size).reshape(shape) % 2
    tensor = finish()
    assert backend.is_backend_tensor(tensor)
    assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    found = backend.to_numpy(tensor)
    assert found.shape == shape
    np.testing.assert_array_equal(found.astype("float32"), array.astype("float32"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fill_by_parts(dtype):
    layer = keras.layers.Dense(4, dtype=dtype)
    kernel, bias = backend.build_unfilled(lambda: layer.build((None, 3)))
    given = np.linspace(-1, 1, 12).reshape(3, 4)
    backend.fill(kernel, [(np.s_[:, :1], given[:, :1]), (np.s_[:, 1:], given[:, 1:])])
    backend.fill(bias)
    found = backend.to_numpy(kernel)
    np.testing.assert_array_equal(found, given.astype(found.dtype))
    kernel.assign(kernel.value + 1)  # Its memory is its own.
    np.testing.assert_allclose(backend.to_numpy(layer(np.eye(3))), given + 1, atol=0.02)


def test_fill_refuses_parts_of_another_shape():
    layer = keras.layers.Dense(4)
    kernel, _ = backend.build_unfilled(lambda: layer.build((None, 3)))
    with pytest.raises(
        ValueError, match=r"shape \(4,\) for a part of .*kernel`, expected \(3, 4\)"
    ):
        backend.fill(kernel, [(..., np.zeros(4))])
    with pytest.raises(ValueError, match=r"8 numbers for .*kernel`, expected 12"):
        backend.fill(kernel, [(slice(2), np.zeros((2, 4)))])


def test_devices():
    assert "cpu:0" in backend.devices()
    with keras.device(backend.devices()[-1]):
        assert backend.to_numpy(ops.ones(2)).sum() == 2


def test_device_kind():
    kinds = {device.partition(":")[0] for device in backend.devices()}
    assert {backend.device_kind(), backend.device_kind(ops.ones(2))} <= kinds | {"cuda", "rocm"}


@pytest.mark.skipif(backend.name() != "tensorflow", reason="concerns tensorflow only")
def test_device_kind_where_tensorflow_has_a_card(monkeypatch):
    """What is traced would be on the card, which stands behind the processor in its list."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        x = tf.zeros(2)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [kind])
    assert backend.device_kind(x) == "cpu"
    assert backend.device_kind() == "gpu"
    kinds = []
    tf.function(lambda x: kinds.append(backend.device_kind(x)) or x)(x)
    assert kinds == ["gpu"]


@pytest.mark.skipif(backend.name() != "jax", reason="jax calls the cards of all makers gpu")
def test_device_kind_of_jax_s_cards(monkeypatch):
    import jax

    known = backend.device_kind()
    for version, kind in {"cuda 12080": "cuda", "rocm 60300": "rocm"}.items():
        client = types.SimpleNamespace(platform_version=f"PJRT C API\n{version}")
        card = types.SimpleNamespace(platform="gpu", client=client)
        monkeypatch.setattr(jax, "devices", lambda *_, card=card: [card])
        assert backend.device_kind() == kind
        jax.jit(lambda x, kind=kind: x if backend.device_kind(x) == kind else pytest.fail())(1.0)
        assert backend.device_kind(ops.ones(2)) == known
        with jax.default_device(ops.ones(2).device):
            assert backend.device_kind() == known


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_to_numpy(dtype):
    array = backend.to_numpy(ops.cast(ops.convert_to_tensor([0.0, 1.0, 1.0]), dtype))
    assert isinstance(array, np.ndarray)
    assert str(array.dtype) == dtype
    assert array.astype("float32").tolist() == [0, 1, 1]


def test_to_numpy_of_variable_and_number():
    assert backend.to_numpy(keras.Variable([1.0, 2.0])).tolist() == [1, 2]
    assert backend.to_numpy(3) == 3


def test_is_backend_tensor():
    assert backend.is_backend_tensor(ops.ones(2))
    for other in (1.0, [1.0], "x", None, keras.KerasTensor((2,))):
        assert not backend.is_backend_tensor(other)


def test_is_tracing():
    assert not backend.is_tracing(ops.ones(2))
    assert not backend.is_tracing(np.ones(2))
    assert not backend.is_tracing(keras.Variable(1.0))
    assert backend.is_tracing(keras.KerasTensor((2,)))
    seen = []

    def fn(x):
        seen.append(backend.is_tracing(x))
        return x + 1

    backend.compile(fn)(ops.ones(2))
    assert seen[0] == (backend.name() in ("jax", "tensorflow", "mlx"))


def test_dlpack_round_trip():
    array = np.arange(6, dtype="float32").reshape(2, 3)
    tensor = backend.from_dlpack(array)
    assert backend.is_backend_tensor(tensor)
    assert backend.to_numpy(tensor).tolist() == array.tolist()
    out = backend.to_dlpack(tensor)
    assert hasattr(out, "__dlpack_device__")
    assert np.from_dlpack(out).tolist() == array.tolist()
    assert backend.to_numpy(backend.from_dlpack(out)).tolist() == array.tolist()


def test_value_and_grad(training_backend):
    fn = backend.value_and_grad(lambda x, n, y: ops.sum(x * x * ops.cast(n, "float32")))
    value, gradients = fn(np.array([1.0, 2.0], "float32"), np.array([3, 4]), np.ones(1, "float32"))
    assert float(value) == pytest.approx(19)
    assert backend.to_numpy(gradients[0]).tolist() == [6, 16]
    assert gradients[1] is None
    assert backend.to_numpy(gradients[2]).tolist() == [0]


def test_gradient_of_a_gradient(training_backend):
    slope = backend.value_and_grad(lambda x, y: ops.sum(x * x * x * y))

    def total(x, y):
        value, (first, _) = slope(x, y)
        return value + ops.sum(first)

    x, y = np.array([2.0, 3.0], "float32"), np.array([1.0, 5.0], "float32")
    value, (dx, dy) = backend.value_and_grad(total)(x, y)
    np.testing.assert_allclose(backend.to_numpy(value), 143 + 147, rtol=1e-6)
    np.testing.assert_allclose(backend.to_numpy(dx), (3 * x * x + 6 * x) * y, rtol=1e-6)
    np.testing.assert_allclose(backend.to_numpy(dy), x**3 + 3 * x * x, rtol=1e-6)


def test_value_and_grad_refuses(training_backend):
    with pytest.raises(ValueError, match="expected a scalar"):
        backend.value_and_grad(lambda x: x)(np.ones(2, "float32"))
    with pytest.raises(TypeError, match="expected a real dtype"):
        backend.value_and_grad(ops.sum)(np.ones(2, "complex64"))
    with pytest.raises(TypeError, match="expected keras.Variable"):
        backend.value_and_grad_variables(lambda: 0.0, [np.ones(2)])


def test_value_and_grad_variables(training_backend):
    table = keras.layers.Embedding(4, 2, embeddings_initializer="ones")
    drop = keras.layers.Dropout(0.5, seed=1)
    norm = keras.layers.BatchNormalization()
    tokens = np.array([[0, 2, 2]])
    table(tokens), norm(table(tokens))
    seed = backend.to_numpy(drop.seed_generator.state)
    mean = backend.to_numpy(norm.moving_mean)

    def loss():
        return ops.sum(table(tokens)) + 0 * ops.sum(
            norm(drop(table(tokens), training=True), training=True)
        )

    value, (gradient,) = backend.value_and_grad_variables(loss, table.trainable_variables)
    assert float(value) == pytest.approx(6)
    assert backend.to_numpy(gradient).tolist() == [[1, 1], [0, 0], [2, 2], [0, 0]]
    assert (backend.to_numpy(drop.seed_generator.state) != seed).any()
    assert (backend.to_numpy(norm.moving_mean) != mean).any()
    assert backend.to_numpy(table.embeddings).tolist() == np.ones((4, 2)).tolist()


def test_require_training():
    if backend.capabilities().trains:
        assert backend.require_training() is None
        return
    for call in (
        backend.require_training,
        lambda: backend.value_and_grad(ops.sum),
        lambda: backend.value_and_grad_variables(lambda: 0.0, []),
    ):
        with pytest.raises(ValueError, match=r"numpy backend predicts only\. Set KERAS_BACKEND="):
            call()


def test_capabilities_refuse_unknown():
    with pytest.raises(ValueError, match="Did you mean 'tensorflow'"):
        backend.capabilities("tensorflo")
    with pytest.raises(AttributeError):
        backend.capabilities().trains = True


def test_capability_trains():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    if backend.capabilities().trains:
        assert model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0).history["loss"]
    else:
        with pytest.raises(NotImplementedError):
            model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)


def test_capability_float64():
    """In every op, not in most: torch has `exp` in float64 and `matmul` not, jax `matmul`."""
    x = np.array([[0.1, 0.7], [0.3, -0.2]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # jax says that it truncates
        tensor = ops.convert_to_tensor(x, dtype="float64")
        pairs = (
            (ops.exp(tensor), np.exp(x)),
            (ops.tanh(tensor), np.tanh(x)),
            (ops.matmul(tensor, tensor), x @ x),
            (ops.cumsum(tensor, axis=1), np.cumsum(x, axis=1)),
            (ops.maximum(tensor, 0.0), np.maximum(x, 0.0)),
        )
    errors = [np.abs(backend.to_numpy(found) - expected).max() for found, expected in pairs]
    assert (max(errors) < 1e-14) == backend.capabilities().float64


def test_what_has_no_float64_refuses_it():
    layer, engine = ek.layers.MinGRU, ek.ops.linear_recurrence
    x = np.ones((1, 2, 3))
    if backend.capabilities().float64:
        assert layer(dtype="float64")(x).dtype == "float64"
        assert engine(x, x).dtype == "float64"
        return
    with pytest.raises(ValueError, match="`MinGRU` received dtype='float64' under the .* backend"):
        layer(dtype="float64")
    with pytest.raises(ValueError, match="received dtype='float64'.*float64 .tensorflow."):
        ek.models.SequenceModel(blocks=["min_gru"], dtype="float64")
    if backend.name() == "torch":  # The others make float32 of a float64 array, and mlx has none.
        with pytest.raises(ValueError, match="Received b of dtype float64"):
            engine(x, x)


def test_compile_takes_what_is_given_up_and_leaves_the_rest():
    run = backend.compile(lambda x, state: (x + state, state * 2), donate=(1,))
    x, state = ops.ones(3), ops.ones(3)
    for _ in range(3):
        y, state = run(x, state)
    np.testing.assert_array_equal(backend.to_numpy(y), [5, 5, 5])
    np.testing.assert_array_equal(backend.to_numpy(state), [8, 8, 8])
    np.testing.assert_array_equal(backend.to_numpy(x), [1, 1, 1])


def test_capability_complex():
    z = np.array([1 + 2j, -0.5j], "complex64")
    works = np.allclose(backend.to_numpy(ops.exp(ops.convert_to_tensor(z))), np.exp(z), atol=1e-6)
    assert works == backend.capabilities().complex


def test_capability_dynamic_shapes():
    traces = []

    def fn(x):
        traces.append(x.shape)
        return ops.sum(x * 2)

    compiled = backend.compile(fn)
    if backend.name() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(fn, input_signature=[tf.TensorSpec([None], "float32")])
    for length in (2, 3, 5, 7):
        compiled(ops.ones(length))
    # An eager backend runs the function each time and compiles nothing.
    eager = backend.name() in ("numpy", "torch")
    assert (eager or len(traces) == 1) == backend.capabilities().dynamic_shapes


def test_capability_custom_gradients():
    def identity(x):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return upstream * 5.0

        return x * 1.0, gradient

    if not backend.capabilities().custom_gradients:
        with pytest.warns(UserWarning, match="pass-through"):
            ops.custom_gradient(identity)
        return
    identity = ops.custom_gradient(identity)
    _, (gradient,) = backend.value_and_grad(lambda x: ops.sum(identity(x) * 2.0))(
        np.ones(2, "float32")
    )
    assert backend.to_numpy(gradient).tolist() == [10, 10]


def test_capability_distribution():
    layout = ("batch",)
    try:
        mesh = keras.distribution.DeviceMesh((1,), layout, keras.distribution.list_devices()[:1])
        placed = keras.distribution.distribute_tensor(
            ops.ones(2), keras.distribution.TensorLayout(layout, mesh)
        )
        works = backend.to_numpy(placed).tolist() == [1, 1]
    except (AttributeError, NotImplementedError, ValueError):
        works = False
    assert works == backend.capabilities().distribution
