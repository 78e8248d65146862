"""EmberTensor itself: attributes, operators, scalars, copies, and what it refuses."""

import copy
import operator
import pickle

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember_keras import ops
from ember_keras.ops import EmberTensor

FLOAT_OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
]
INTEGER_OPERATORS = [operator.and_, operator.or_, operator.xor, operator.floordiv, operator.mod]


def small(shape, low=-3, high=4, dtype="float32", seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def numpy_of(x):
    return x.detach().numpy() if isinstance(x, EmberTensor) else np.asarray(x)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_attributes(shape):
    x = ops.asarray(small(shape))
    assert x.shape == shape and isinstance(x.shape, tuple)
    assert x.ndim == len(shape) and x.size == int(np.prod(shape))
    assert x.dtype == "float32" == x.dtype and x.dtype == np.float32 and x.dtype == ops.float32
    assert x.dtype != "int32" and x.dtype != np.dtype("int32") and x.dtype is not None
    assert x.dtype in (ops.float16, ops.float32) and hash(x.dtype) == hash("float32")
    assert isinstance(x.device, str) and x.to_device(x.device).device == x.device
    assert keras.ops.is_tensor(x.value)


def test_wraps_and_does_not_copy():
    tensor = keras.ops.ones((2, 3))
    assert EmberTensor(tensor).value is tensor
    assert EmberTensor(EmberTensor(tensor)).value is tensor


def test_transposes():
    x = small((2, 3, 4))
    assert ops.asarray(x).mT.shape == (2, 4, 3)
    np.testing.assert_array_equal(ops.asarray(x[0]).T.numpy(), x[0].T)
    with pytest.raises(ValueError, match=r"Expected two dimensions.*mT"):
        _ = ops.asarray(x).T
    with pytest.raises(ValueError, match="at least two dimensions"):
        _ = ops.ones((3,)).mT


@pytest.mark.parametrize("function", FLOAT_OPERATORS, ids=lambda f: f.__name__)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.data())
def test_operators_are_numpys(function, data):
    shapes = st.sampled_from([((), (3,)), ((2, 1), (3,)), ((2, 3), (2, 3)), ((3,), (2, 3))])
    first, second = data.draw(shapes)
    a, b = small(first, seed=data.draw(st.integers(0, 99))), small(second, 1, 4)
    x, y = ops.asarray(a), ops.asarray(b)
    assert_same(function(x, y), function(a, b))
    assert_same(function(a, y), function(a, b))
    assert_same(function(x, y.value), function(a, b))


@pytest.mark.parametrize("function", FLOAT_OPERATORS, ids=lambda f: f.__name__)
def test_python_scalars_take_the_dtype_of_the_tensor(function):
    for dtype in ("float32", "float16"):
        a = small((2, 3), 1, 4, dtype)
        x = ops.asarray(a)
        assert_same(function(x, 2.5), function(a, 2.5))
        assert_same(function(2, x), function(2, a))


def assert_same(result, expected):
    expected = np.asarray(expected)
    assert isinstance(result, EmberTensor)
    assert result.shape == expected.shape and result.dtype == expected.dtype
    rtol = 2e-3 if expected.dtype == np.float16 else 1e-6
    np.testing.assert_allclose(numpy_of(result), expected, rtol=rtol)


@pytest.mark.parametrize("function", INTEGER_OPERATORS, ids=lambda f: f.__name__)
def test_integer_operators_are_numpys(function):
    a, b = small((4, 3), -9, 10, "int32"), small((3,), 1, 5, "int32", seed=1)
    assert_same(function(ops.asarray(a), ops.asarray(b)), function(a, b))
    assert_same(function(ops.asarray(a), 3), function(a, 3))
    assert_same(function(7, ops.asarray(b)), function(np.int32(7), b))


def test_shifts_unary_power_and_matmul():
    a = small((3, 3), 0, 5, "int32")
    x = ops.asarray(a)
    assert_same(x << 2, a << 2)
    assert_same(x >> 1, a >> 1)
    assert_same(~x, ~a)
    assert_same(-x, -a)
    assert_same(+x, a)
    assert_same(abs(-x), abs(-a))
    assert_same(~(x > 2), ~(a > 2))
    for function in (operator.and_, operator.or_, operator.xor):
        assert_same(function(x > 2, x > 3), function(a > 2, a > 3))
        assert_same(function(x > 2, True), function(a > 2, True))
    f = small((2, 3, 3))
    assert_same(ops.asarray(f) ** 2, f**2)
    assert_same(2.0 ** ops.asarray(f), np.float32(2) ** f)
    assert_same(ops.asarray(f) @ ops.asarray(f), f @ f)
    assert_same(f @ ops.asarray(f), f @ f)


def test_in_place_operators_bind_a_new_tensor():
    x = before = ops.ones((2,))
    x += 1
    assert x is not before and before.numpy().tolist() == [1, 1] and x.numpy().tolist() == [2, 2]


def test_operators_refuse_what_is_no_tensor():
    x = ops.ones((2,))
    with pytest.raises(TypeError):
        x + "1"
    with pytest.raises(TypeError):
        x + [1, 2]
    assert (x == None) is False  # noqa: E711
    assert (x != "a") is True


def test_symbols_of_a_functional_model_pass_through():
    symbol = keras.Input((3,))
    assert isinstance(ops.ones((3,)) * symbol, keras.KerasTensor)
    assert isinstance(ops.tanh(symbol), keras.KerasTensor)


def test_scalars():
    assert bool(ops.asarray(True)) is True and bool(ops.asarray([0.0])) is False
    assert int(ops.asarray(3)) == 3 and float(ops.asarray([2.5])) == 2.5
    assert complex(ops.asarray(2.0)) == 2 + 0j
    assert [10, 20, 30][ops.asarray(2)] == 30 and list(range(ops.asarray(2))) == [0, 1]
    with pytest.raises(TypeError, match="exactly one element"):
        bool(ops.ones((2,)))
    with pytest.raises(TypeError, match="integer dtype"):
        operator.index(ops.asarray(1.0))


def test_length_and_iteration():
    rows = list(ops.asarray([[1, 2], [3, 4]]))
    assert [row.numpy().tolist() for row in rows] == [[1, 2], [3, 4]]
    assert len(ops.ones((4, 2))) == 4
    for call in (len, iter):
        with pytest.raises(TypeError, match="at least one dimension"):
            call(ops.asarray(1.0))


def test_immutable_and_unhashable():
    x = ops.ones((2,))
    with pytest.raises(TypeError, match=r"immutable.*slice_update"):
        x[0] = 2.0
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)
    with pytest.raises(AttributeError):
        x.shape = (1, 2)


def test_constructor_refuses_what_is_no_backend_tensor():
    for value in ([1, 2], 1.0, None, "x"):
        with pytest.raises(TypeError, match="asarray"):
            EmberTensor(value)


def test_variable_is_taken_by_its_value():
    variable = keras.Variable([1.0, 2.0])
    x = EmberTensor(variable)
    variable.assign([5.0, 6.0])
    assert isinstance(x + variable, EmberTensor)
    assert keras.ops.is_tensor(x.value)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool", "bfloat16", "complex64"])
def test_pickle_and_copies(dtype):
    x = ops.asarray([[1, 0], [0, 1]], dtype=dtype)
    assert copy.copy(x).value is x.value
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y.value is not x.value and y.dtype == x.dtype
        np.testing.assert_array_equal(y.numpy(), x.numpy())


def test_repr():
    assert repr(ops.asarray([1.5, 2.0])).startswith("EmberTensor([1.5, 2. ], dtype=float32")
    assert "bfloat16" in repr(ops.ones((2,), dtype="bfloat16"))


def test_namespace():
    x = ops.ones((2,))
    assert x.__array_namespace__() is ops
    assert x.__array_namespace__(api_version="2023.12") is ops
    with pytest.raises(ValueError, match="2023.12"):
        x.__array_namespace__(api_version="1999.01")
    for name in ops.tensor.__all__:
        assert hasattr(ops, name), name


def test_astype_and_exact_dtypes(backend):
    x = ops.asarray([1.7, -2.0])
    assert x.astype("float32") is x
    assert x.astype(np.int32).numpy().tolist() == [1, -2]
    assert x.astype("bool").dtype == ops.bool
    missing = {"torch": "uint32", "jax": "float64", "mlx": "float64"}.get(backend)
    if missing is not None:
        with pytest.raises(ValueError, match="holds exactly"):
            x.astype(missing)
        with pytest.raises(ValueError, match="holds exactly"):
            ops.zeros((2,), dtype=missing)


def test_to_device_refuses_unknown_devices():
    x = ops.ones((2,))
    with pytest.raises(ValueError, match="Expected"):
        x.to_device("abacus:7")
    with pytest.raises(ValueError, match="stream"):
        x.to_device(x.device, stream=1)
