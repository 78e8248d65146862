"""Mends of complex gradients: mlx 0.31 multiplies by f'(z) where it must by its conjugate.

With the convention of mlx's own linear complex ops (add, multiply, abs, fft), the gradient of a
holomorphic f is the incoming gradient times the conjugate of f'(z). mlx leaves the conjugate out
for every elementwise function below, so that training through a complex exponential, as the
diagonal state-space layers do, follows a wrong direction. Two values are wrong too: `VALUES`.
"""

import mlx.core as mx

DERIVATIVES = {
    "exp": lambda z, y: y,
    "exp2": lambda z, y: y * 0.6931471805599453,
    "expm1": lambda z, y: y + 1,
    "log": lambda z, y: 1 / z,
    "log1p": lambda z, y: 1 / (1 + z),
    "log2": lambda z, y: 1.4426950408889634 / z,
    "log10": lambda z, y: 0.4342944819032518 / z,
    "sqrt": lambda z, y: 0.5 / y,
    "square": lambda z, y: 2 * z,
    "sin": lambda z, y: mx.cos(z),
    "cos": lambda z, y: -mx.sin(z),
    "tan": lambda z, y: 1 + y * y,
    "sinh": lambda z, y: mx.cosh(z),
    "cosh": lambda z, y: mx.sinh(z),
    "tanh": lambda z, y: 1 - y * y,
    "rsqrt": lambda z, y: -0.5 * y / z,
    "sigmoid": lambda z, y: y * (1 - y),
}
"""Name of an op of one argument -> its derivative from the argument and the value."""


def _complex_expm1(z):
    x, y = mx.real(z), mx.imag(z)
    half = mx.sin(0.5 * y)
    return (mx.expm1(x) * mx.cos(y) - 2 * half * half) + 1j * (mx.exp(x) * mx.sin(y))


VALUES = {"expm1": _complex_expm1, "sigmoid": lambda z: 1 / (1 + mx.exp(-z))}
"""Name of an op whose complex value, too, is wrong in mlx 0.31 -> the right one."""


def _is_complex(x):
    return isinstance(x, mx.array) and x.dtype == mx.complex64


def holomorphic(name):
    """Return the mend that gives the op `name` its complex gradient."""

    def mend(module):
        stock, derivative = getattr(module, name), DERIVATIVES[name]
        value = VALUES.get(name, stock)

        @mx.custom_function
        def complex_op(z):
            return value(z)

        @complex_op.vjp
        def backward(z, cotangent, output):
            return cotangent * mx.conjugate(derivative(z, output))

        def op(x):
            x = module.convert_to_tensor(x)
            return complex_op(x) if _is_complex(x) else stock(x)

        op.__name__ = op.__qualname__ = name
        setattr(module, name, op)

    mend.__name__ = f"holomorphic_{name}"
    return mend


def power(module):
    """`power` of complex numbers: the same missing conjugate, in both arguments."""
    stock = module.power

    @mx.custom_function
    def complex_power(base, exponent):
        return stock(base, exponent)

    @complex_power.vjp
    def backward(primals, cotangent, output):
        base, exponent = primals
        lowered = mx.where(exponent == 0, 0, exponent * mx.power(base, exponent - 1))
        logarithm = mx.where(base == 0, 0, mx.log(mx.where(base == 0, 1, base)))
        return cotangent * mx.conjugate(lowered), cotangent * mx.conjugate(output * logarithm)

    def op(x1, x2):
        if not (_is_complex(x1) or _is_complex(x2) or isinstance(x2, complex)):
            return stock(x1, x2)
        base = module.convert_to_tensor(x1, "complex64")
        exponent = module.convert_to_tensor(x2, "complex64")
        base, exponent = mx.broadcast_arrays(base, exponent)
        return complex_power(base, exponent)

    op.__name__ = op.__qualname__ = "power"
    module.power = op


def cumprod(module):
    """`cumprod` of complex numbers: the same missing conjugate; built from products instead."""
    from keras_mlx.src.ops.core import associative_scan

    stock = module.cumprod

    def cumprod(x, axis=None, dtype=None):
        x = module.convert_to_tensor(x)
        if not _is_complex(x) or x.size == 0:
            return stock(x, axis=axis, dtype=dtype)
        if axis is None:
            x, axis = mx.reshape(x, (-1,)), 0
        axis = axis + x.ndim if axis < 0 else axis
        return associative_scan(mx.multiply, x, axis=axis)

    module.cumprod = cumprod
