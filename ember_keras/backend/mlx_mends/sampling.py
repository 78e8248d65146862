"""Mends of `keras_mlx.src.random`."""

import mlx.core as mx


def float64(module):
    """`uniform` and `truncated_normal` raised for float64, and with them most initializers.

    mlx draws no float64: the numbers are drawn in float32 and widened.
    """
    for name in ("uniform", "truncated_normal"):
        setattr(module, name, _widened(getattr(module, name), module))


def _widened(stock, module):
    def draw(shape, low, high, dtype=None, seed=None):
        kind = module.to_mlx_dtype(dtype or module.floatx())
        if kind != mx.float64:
            return stock(shape, low, high, dtype=dtype, seed=seed)
        return stock(shape, low, high, dtype="float32", seed=seed).astype(mx.float64)

    if stock.__name__ == "uniform":

        def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
            return draw(shape, minval, maxval, dtype, seed)

        return uniform

    def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return draw(shape, mean, stddev, dtype, seed)

    return truncated_normal
