"""Functions of each element (array API chapter "Element-wise functions").

Every function takes tensors whose shapes broadcast together and returns a tensor of the broadcast
shape. Python scalars take the dtype of the tensor beside them where its kind allows. Integers given
to a function of real numbers are computed in the default floating dtype.
"""

from keras import ops

from ember_keras.ops.tensor import creation, operators
from ember_keras.ops.tensor.data_types import isdtype
from ember_keras.ops.tensor.nests import wrap


def _documented(function, name, what, arguments):
    function.__name__ = function.__qualname__ = name
    function.__module__ = __name__
    function.__doc__ = (
        f"{what}, element by element.\n\n"
        f"Args:\n    {arguments}: Tensors of shapes that broadcast together.\n\n"
        "Returns:\n    A tensor of the broadcast shape: EmberTensor for EmberTensor, and a backend "
        "tensor for a\n    backend tensor."
    )
    return wrap(function)


def _unary(function, name, what):
    def elementwise(x, /):
        return function(x)

    return _documented(elementwise, name, what, "x")


def _binary(function, name, what):
    def elementwise(x1, x2, /):
        return function(x1, x2)

    return _documented(elementwise, name, what, "x1, x2")


def _or_same(function):
    """A function of floats under which integers and bools are what they are."""

    def kept(x):
        x = creation.as_backend_tensor(x)
        return function(x) if isdtype(x.dtype, "real floating") else x

    return kept


abs = _unary(ops.abs, "abs", "The absolute value")
acos = _unary(ops.arccos, "acos", "The inverse cosine, in radians")
acosh = _unary(ops.arccosh, "acosh", "The inverse hyperbolic cosine")
add = _binary(ops.add, "add", "The sum `x1 + x2`")
asin = _unary(ops.arcsin, "asin", "The inverse sine, in radians")
asinh = _unary(ops.arcsinh, "asinh", "The inverse hyperbolic sine")
atan = _unary(ops.arctan, "atan", "The inverse tangent, in radians")
atan2 = _binary(ops.arctan2, "atan2", "The angle of the point `(x2, x1)`, in radians")
atanh = _unary(ops.arctanh, "atanh", "The inverse hyperbolic tangent")
bitwise_and = _binary(operators.bitwise_and, "bitwise_and", "The bits set in both")
bitwise_invert = _unary(operators.invert, "bitwise_invert", "The bits turned over")
bitwise_left_shift = _binary(ops.left_shift, "bitwise_left_shift", "`x1` shifted left by `x2` bits")
bitwise_or = _binary(operators.bitwise_or, "bitwise_or", "The bits set in either")
bitwise_right_shift = _binary(
    ops.right_shift, "bitwise_right_shift", "`x1` shifted right by `x2` bits"
)
bitwise_xor = _binary(operators.bitwise_xor, "bitwise_xor", "The bits set in exactly one")
ceil = _unary(_or_same(ops.ceil), "ceil", "The smallest integer not below")
conj = _unary(ops.conj, "conj", "The complex conjugate")
cos = _unary(ops.cos, "cos", "The cosine of radians")
cosh = _unary(ops.cosh, "cosh", "The hyperbolic cosine")
divide = _binary(ops.true_divide, "divide", "The quotient `x1 / x2`, floating")
equal = _binary(ops.equal, "equal", "Whether `x1 == x2`")
exp = _unary(ops.exp, "exp", "The exponential")
expm1 = _unary(ops.expm1, "expm1", "`exp(x) - 1`, exact near zero")
floor = _unary(_or_same(ops.floor), "floor", "The largest integer not above")
floor_divide = _binary(ops.floor_divide, "floor_divide", "The quotient rounded down")
greater = _binary(ops.greater, "greater", "Whether `x1 > x2`")
greater_equal = _binary(ops.greater_equal, "greater_equal", "Whether `x1 >= x2`")
hypot = _binary(ops.hypot, "hypot", "`sqrt(x1**2 + x2**2)` without overflow")
imag = _unary(ops.imag, "imag", "The imaginary part")
isfinite = _unary(ops.isfinite, "isfinite", "Whether neither infinite nor NaN")
isinf = _unary(ops.isinf, "isinf", "Whether infinite")
isnan = _unary(ops.isnan, "isnan", "Whether NaN")
less = _binary(ops.less, "less", "Whether `x1 < x2`")
less_equal = _binary(ops.less_equal, "less_equal", "Whether `x1 <= x2`")
log = _unary(ops.log, "log", "The natural logarithm")
log1p = _unary(ops.log1p, "log1p", "`log(1 + x)`, exact near zero")
log2 = _unary(ops.log2, "log2", "The logarithm to base 2")
log10 = _unary(ops.log10, "log10", "The logarithm to base 10")
logaddexp = _binary(ops.logaddexp, "logaddexp", "`log(exp(x1) + exp(x2))` without overflow")
logical_and = _binary(ops.logical_and, "logical_and", "Whether both are true")
logical_not = _unary(ops.logical_not, "logical_not", "Whether not true")
logical_or = _binary(ops.logical_or, "logical_or", "Whether either is true")
logical_xor = _binary(ops.logical_xor, "logical_xor", "Whether exactly one is true")
maximum = _binary(ops.maximum, "maximum", "The larger of the two")
minimum = _binary(ops.minimum, "minimum", "The smaller of the two")
multiply = _binary(ops.multiply, "multiply", "The product `x1 * x2`")
negative = _unary(ops.negative, "negative", "`-x`")
not_equal = _binary(ops.not_equal, "not_equal", "Whether `x1 != x2`")
positive = _unary(ops.convert_to_tensor, "positive", "`+x`: the same values")
pow = _binary(ops.power, "pow", "The power `x1 ** x2`")
real = _unary(ops.real, "real", "The real part")
reciprocal = _unary(ops.reciprocal, "reciprocal", "`1 / x`")
remainder = _binary(ops.mod, "remainder", "`x1 % x2`, with the sign of `x2`")
round = _unary(_or_same(ops.round), "round", "The nearest integer, halves to the even one")
sign = _unary(ops.sign, "sign", "-1, 0 or 1 by sign")
sin = _unary(ops.sin, "sin", "The sine of radians")
sinh = _unary(ops.sinh, "sinh", "The hyperbolic sine")
sqrt = _unary(ops.sqrt, "sqrt", "The square root")
square = _unary(ops.square, "square", "The square")
subtract = _binary(ops.subtract, "subtract", "The difference `x1 - x2`")
tan = _unary(ops.tan, "tan", "The tangent of radians")
tanh = _unary(ops.tanh, "tanh", "The hyperbolic tangent")
trunc = _unary(_or_same(ops.trunc), "trunc", "The integer part")


@wrap
def clip(x, /, min=None, max=None):
    """The values held between two bounds.

    Args:
        x: Tensor of any shape.
        min: Scalar or tensor that broadcasts to `x`; `None` for no lower bound.
        max: Scalar or tensor that broadcasts to `x`; `None` for no upper bound.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.clip(ek.ops.asarray([-2.0, 0.5, 7.0]), min=0.0, max=1.0)
    EmberTensor([0. , 0.5, 1. ], dtype=float32, device='cpu:0')
    """
    x = creation.as_backend_tensor(x)
    for bound, function in ((min, ops.maximum), (max, ops.minimum)):
        if bound is not None:
            x = ops.cast(function(x, bound), x.dtype)
    return x
