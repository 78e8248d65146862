"""The functions of the namespace against numpy, and the array API's rules on dtypes and axes."""

import doctest
import importlib

import keras
import numpy as np
import pytest

from ember_keras import ops
from ember_keras.ops import EmberTensor

F = np.linspace(0.1, 0.9, 6, dtype="float32").reshape(2, 3)
I = np.array([[3, -1, 2], [0, 5, -4]], "int32")  # noqa: E741
ODD = np.array([1, np.inf, -np.inf, np.nan], "float32")
UNARY = {
    "abs": I, "acos": F, "acosh": F + 1, "asin": F, "asinh": F, "atan": F, "atanh": F,
    "ceil": F * 9, "conj": F + 1j * F, "cos": F, "cosh": F, "exp": F, "expm1": F, "floor": -F * 9,
    "imag": F + 1j * F, "isfinite": ODD, "isinf": ODD, "isnan": ODD, "log": F,
    "log1p": F, "log2": F, "log10": F, "logical_not": I, "negative": I, "positive": I,
    "real": F + 1j * F, "reciprocal": F, "round": F * 9, "sign": I, "sin": F, "sinh": F,
    "sqrt": F, "square": I, "tan": F, "tanh": F, "trunc": F * -9, "bitwise_invert": I,
}  # fmt: skip
BINARY = {
    "add": (F, F[0]), "atan2": (F, -F), "bitwise_and": (I, I[0]), "bitwise_or": (I, I[0]),
    "bitwise_xor": (I, I[0]), "bitwise_left_shift": (I, np.abs(I)),
    "bitwise_right_shift": (I, np.abs(I)), "divide": (F, F[:, :1]), "equal": (I, I.T[:2, :1]),
    "floor_divide": (I, np.int32(2)), "greater": (I, I[0]), "greater_equal": (I, I[0]),
    "hypot": (F, F[0]), "less": (I, I[0]), "less_equal": (I, I[0]), "logaddexp": (F, F[0]),
    "logical_and": (I, I[0]), "logical_or": (I, I[0]), "logical_xor": (I, I[0]),
    "maximum": (I, I[0]), "minimum": (I, I[0]), "multiply": (F, I), "not_equal": (I, I[0]),
    "pow": (F, F[0]), "remainder": (I, np.int32(3)), "subtract": (F, F[0]),
}  # fmt: skip
NUMPYS = {
    "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan",
    "atanh": "arctanh", "atan2": "arctan2", "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift", "concat": "concatenate", "pow": "power",
    "permute_dims": "transpose",
}  # fmt: skip
MODULES = [
    "creation", "data_types", "elementwise", "ember_tensor", "fft", "gradients", "linear_algebra",
    "manipulation", "nests", "searching", "statistical",
]  # fmt: skip


def check(result, expected, dtype=True):
    expected = np.asarray(expected)
    assert isinstance(result, EmberTensor)
    assert result.shape == expected.shape
    if dtype and expected.dtype not in ("float64", "complex128", "int64"):
        assert result.dtype == expected.dtype
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-5, atol=1e-6)


def given(name, *arrays):
    """The function's result for EmberTensors, equal to its result for backend tensors."""
    function = getattr(ops, name)
    result = function(*map(ops.asarray, arrays))
    bare = function(*(ops.asarray(array).value for array in arrays))
    assert keras.ops.is_tensor(bare)
    np.testing.assert_array_equal(EmberTensor(bare).numpy(), result.numpy())
    return result


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    x = UNARY[name]
    with np.errstate(all="ignore"):
        check(given(name, x), getattr(np, NUMPYS.get(name, name))(x))


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    x, y = BINARY[name]
    check(given(name, x, y), getattr(np, NUMPYS.get(name, name))(x, y))


def test_every_elementwise_function_is_tested():
    module = importlib.import_module("ember_keras.ops.tensor.elementwise")
    names = set(vars(module)) & set(ops.tensor.__all__)
    assert names - set(UNARY) - set(BINARY) == {"clip", "isdtype", "wrap"}


def test_rounding_keeps_integers_and_clip_keeps_the_dtype():
    for name in ("ceil", "floor", "round", "trunc"):
        check(given(name, I), I)
    check(ops.clip(ops.asarray(I), -1, 2.5), np.clip(I, -1, 2))
    check(ops.clip(ops.asarray(F), max=0.5), np.minimum(F, np.float32(0.5)))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (), (1,)])
def test_reductions(axis, keepdims):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for name in ("sum", "prod", "max", "min", "mean", "var", "std", "all", "any", "count_nonzero"):
        if axis == () and name not in ("sum", "prod"):
            continue
        expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        result = getattr(ops, name)(ops.asarray(x), axis=axis, keepdims=keepdims)
        check(result, expected, dtype=name != "count_nonzero")
        assert name != "count_nonzero" or result.dtype == "int32"


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("bool", "int32"), ("int8", "int32"), ("int16", "int32"), ("int32", "int32"), ("uint8", None)],
)
def test_sums_of_integers_are_wide(dtype, wide):
    x = ops.ones((300,), dtype=dtype)
    for function in (ops.sum, ops.prod, ops.cumulative_sum):
        assert function(x).dtype in ((wide,) if wide else ("int32", "uint32"))
    assert int(ops.sum(x)) == 300
    assert ops.sum(x, dtype="float32").dtype == "float32"
    assert ops.max(x).dtype == dtype or dtype == "bool"


def test_corrected_variance_and_running_sums():
    x = np.arange(6, dtype="float32").reshape(2, 3)
    check(ops.var(ops.asarray(x), axis=1, correction=1), np.var(x, axis=1, ddof=1))
    check(ops.std(ops.asarray(x), correction=0.5), np.std(x, ddof=0.5))
    with pytest.raises(ValueError, match="correction"):
        ops.var(ops.asarray(x), axis=0, correction=2)
    check(ops.cumulative_sum(ops.asarray(x), axis=1), np.cumsum(x, axis=1))
    check(ops.cumulative_prod(ops.asarray(I), axis=0), np.cumprod(I, axis=0))
    with pytest.raises(ValueError, match="Pass `axis`"):
        ops.cumulative_sum(ops.asarray(x))
    check(ops.diff(ops.asarray(I), n=2), np.diff(I, n=2))


def test_creation():
    check(ops.zeros((2, 3)), np.zeros((2, 3), "float32"))
    check(ops.ones(3, dtype="int32"), np.ones(3, "int32"))
    check(ops.full((2,), True), np.full(2, True))
    check(ops.full((2,), 2.5, dtype="float16"), np.full(2, 2.5, "float16"))
    check(ops.eye(3, 2, k=-1), np.eye(3, 2, k=-1, dtype="float32"))
    check(ops.linspace(0, 1, 4, endpoint=False), np.linspace(0, 1, 4, endpoint=False))
    for arguments in ((5,), (1, 6), (5, 0, -2), (0.0, 1.0, 0.3)):
        check(ops.arange(*arguments), np.arange(*arguments))
    check(ops.arange(4, step=2), np.arange(0, 4, 2))
    assert ops.empty((2, 0)).shape == (2, 0)
    x = ops.asarray(I)
    check(ops.zeros_like(x), np.zeros_like(I))
    check(ops.ones_like(x, dtype="float32"), np.ones_like(F))
    check(ops.full_like(x, 7), np.full_like(I, 7))
    assert ops.empty_like(x).shape == x.shape
    assert keras.ops.is_tensor(ops.zeros_like(x.value))
    assert ops.zeros_like(x, device=x.device).device == x.device
    check(ops.tril(x, k=-1), np.tril(I, -1))
    check(ops.triu(x, k=1), np.triu(I, 1))
    for indexing in ("xy", "ij"):
        pairs = zip(
            ops.meshgrid(ops.arange(3), ops.arange(2), indexing=indexing),
            np.meshgrid(np.arange(3), np.arange(2), indexing=indexing),
            strict=True,
        )
        for result, expected in pairs:
            check(result, expected)


def test_manipulation():
    a, x = np.arange(24, dtype="float32").reshape(2, 3, 4), None
    x = ops.asarray(a)
    check(ops.permute_dims(x, (2, 0, 1)), a.transpose(2, 0, 1))
    check(ops.reshape(x, (4, -1)), a.reshape(4, -1))
    check(ops.reshape(x, (-1,), copy=True), a.ravel())
    check(ops.concat([x, x], axis=1), np.concatenate([a, a], axis=1))
    check(ops.concat([x, x[0]], axis=None), np.concatenate([a.ravel(), a[0].ravel()]))
    check(ops.stack([x, x], axis=-1), np.stack([a, a], axis=-1))
    check(ops.expand_dims(x, axis=-1), a[..., None])
    check(ops.squeeze(x[:1, :, :1], (0, -1)), a[0, :, 0])
    check(ops.flip(x), np.flip(a))
    check(ops.flip(x, axis=(0, 2)), np.flip(a, axis=(0, 2)))
    check(ops.roll(x, 3), np.roll(a, 3))
    check(ops.roll(x, (1, -2), axis=(0, 2)), np.roll(a, (1, -2), axis=(0, 2)))
    check(ops.moveaxis(x, 0, -1), np.moveaxis(a, 0, -1))
    check(ops.repeat(x, 2, axis=1), np.repeat(a, 2, axis=1))
    check(ops.tile(x, (2, 1, 1)), np.tile(a, (2, 1, 1)))
    check(ops.broadcast_to(x[:, :1], (2, 3, 4)), np.broadcast_to(a[:, :1], (2, 3, 4)))
    for result in ops.broadcast_arrays(x[0], x[0, :, :1]):
        assert isinstance(result, EmberTensor) and result.shape == (3, 4)
    assert [part.shape for part in ops.unstack(x, axis=1)] == [(2, 4)] * 3
    check(ops.take(x, ops.asarray([2, -3]), axis=1), a[:, [2, -3]])
    index = np.argsort(-a, axis=1)
    check(ops.take_along_axis(x, ops.asarray(index), axis=1), np.take_along_axis(a, index, 1))
    check(ops.where(x > 5, x, 0.0), np.where(a > 5, a, 0))
    updated = ops.slice_update(x, (0, 1, 0), ops.zeros((2, 1, 4)))
    assert float(ops.sum(ops.abs(updated[:, 1]))) == 0 and float(x[0, 1, 0]) == 4
    check(
        ops.scatter_update(ops.zeros((3,)), ops.asarray([[2], [0]]), ops.asarray([5.0, 6.0])),
        [6, 0, 5],
    )
    check(ops.astype(x, "int32"), a.astype("int32"))
    check(ops.astype(x, "bool"), a.astype(bool))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.squeeze(x, 0), ValueError, "size 1"),
        (lambda x: ops.expand_dims(x, axis=4), IndexError, "axis=4"),
        (lambda x: ops.take(x, ops.asarray([0])), ValueError, "Pass `axis`"),
        (lambda x: ops.reshape(x, (6,), copy=False), ValueError, "copy=False"),
        (lambda x: ops.broadcast_arrays(x, ops.ones((4,))), ValueError, "equal or 1"),
        (lambda x: ops.vecdot(x, ops.ones((4,))), ValueError, "same size"),
        (lambda x: ops.isdtype(x.dtype, "float"), ValueError, "real floating"),
        (lambda x: ops.finfo("int32"), ValueError, "iinfo"),
        (lambda x: ops.iinfo("float32"), ValueError, "finfo"),
        (lambda x: ops.result_type(), ValueError, "at least one"),
        (lambda x: ops.fft.fft(x, norm="none"), ValueError, "backward"),
        (lambda x: ops.fft.fft(x, n=0), ValueError, "at least 1"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(ops.ones((2, 3)))


def test_linear_algebra():
    a = np.random.default_rng(1).normal(size=(2, 3, 4)).astype("float32")
    b = np.random.default_rng(2).normal(size=(4, 5)).astype("float32")
    x, y = ops.asarray(a), ops.asarray(b)
    check(ops.matmul(x, y), a @ b)
    check(ops.matmul(x, y[:, 0]), a @ b[:, 0])
    check(ops.matrix_transpose(x), a.swapaxes(1, 2))
    check(ops.tensordot(x, y, axes=1), np.tensordot(a, b, axes=1))
    check(ops.tensordot(x, x, axes=((0, 2), (0, 2))), np.tensordot(a, a, axes=((0, 2), (0, 2))))
    check(ops.vecdot(x, x[0], axis=-2), np.sum(a * a[0], axis=-2))
    c = a[0] + 1j * a[1]
    check(ops.vecdot(ops.asarray(c), ops.asarray(c)), np.sum(np.conj(c) * c, axis=-1))
    check(ops.einsum("bij,jk->bki", x, y), np.einsum("bij,jk->bki", a, b))


def test_searching_and_sorting():
    a = np.array([[3.0, 1.0, 2.0], [-1.0, 5.0, 0.0]], "float32")
    x = ops.asarray(a)
    for name in ("argmax", "argmin"):
        check(getattr(ops, name)(x, axis=1, keepdims=True), getattr(np, name)(a, 1, keepdims=True))
        check(getattr(ops, name)(x), getattr(np, name)(a))
    check(ops.sort(x, axis=0), np.sort(a, axis=0))
    check(ops.sort(x, descending=True), -np.sort(-a))
    check(ops.argsort(x), np.argsort(a))
    check(ops.argsort(ops.asarray(I), axis=0, descending=True), np.argsort(-I, axis=0))
    for result, expected in zip(ops.nonzero(ops.asarray(I)), np.nonzero(I), strict=True):
        check(result, expected)
    edges = np.array([0.0, 1.0, 2.0], "float32")
    check(ops.searchsorted(ops.asarray(edges), x[0]), np.searchsorted(edges, a[0]))


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("n", [None, 3, 7])
@pytest.mark.parametrize("axis", [-1, 0])
def test_fourier_transforms(norm, n, axis):
    a = np.random.default_rng(3).normal(size=(4, 5)).astype("float32")
    z = (a + 1j * a[::-1]).astype("complex64")
    for name, array in (("fft", a), ("fft", z), ("ifft", z), ("rfft", a), ("irfft", z)):
        expected = getattr(np.fft, name)(array, n=n, axis=axis, norm=norm)
        result = getattr(ops.fft, name)(ops.asarray(array), n=n, axis=axis, norm=norm)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_data_types():
    assert ops.isdtype("uint8", "integral") and ops.isdtype(ops.bool, "bool")
    assert not ops.isdtype("bool", "numeric") and ops.isdtype(np.float32, ("bool", "float32"))
    assert ops.result_type(ops.ones((2,)), 1) == "float32"
    assert ops.result_type("int8", 1.0) == "float32"
    assert ops.result_type("float16", 2.0) == "float16"
    assert ops.can_cast("int8", "int16") and not ops.can_cast("int16", "int8")
    assert ops.finfo("float32").eps == np.finfo("float32").eps
    assert ops.finfo("complex64").bits == 32 and ops.finfo(ops.ones((1,))).dtype == "float32"
    assert ops.iinfo("int16").max == 32767
    assert ops.bfloat16.itemsize == 2 and ops.pi == np.pi and ops.newaxis is None


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"ember_keras.ops.tensor.{name}")
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner()
    for test in finder.find(module, extraglobs={"__name__": "example"}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
