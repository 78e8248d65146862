"""Fourier transforms along one axis (array API extension "fft").

The transforms run in single precision where the backend's own do.
"""

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.tensor.creation import as_backend_tensor
from ember_keras.ops.tensor.data_types import isdtype
from ember_keras.ops.tensor.nests import wrap

__all__ = ["fft", "ifft", "irfft", "rfft"]

_NORMS = ("backward", "ortho", "forward")


def _prepared(x, n, axis, norm):
    """`x` with the axis last and `n` long, and `n`."""
    if norm not in _NORMS:
        raise ValueError(
            f"Received norm={norm!r}. Expected one of {', '.join(map(repr, _NORMS))}. "
            "Leave it out for 'backward'."
        )
    x = ops.moveaxis(as_backend_tensor(x), axis, -1)
    size = x.shape[-1]
    n = size if n is None else n
    if n < 1:
        raise ValueError(
            f"Received n={n} points for a tensor of shape {tuple(x.shape)}. Expected at least 1. "
            "Pass a positive `n`, or a tensor that is not empty along the axis."
        )
    if n < size:
        x = x[..., :n]
    elif n > size:
        x = pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, n - size)])
    return x, n


def _parts(x):
    """Real and imaginary part, floating."""
    if isdtype(x.dtype, "complex floating"):
        return ops.real(x), ops.imag(x)
    x = _floating(x)
    return x, ops.zeros_like(x)


def _floating(x):
    return x if isdtype(x.dtype, ("float32", "float64")) else ops.cast(x, "float32")


def _complex(parts):
    return ops.view_as_complex(ops.stack(parts, axis=-1))


def _scaled(x, n, norm):
    """A transform with the scale of `norm`; its own has none, which is 'backward'."""
    return x if norm == "backward" else x * {"ortho": n**-0.5, "forward": 1.0 / n}[norm]


@wrap
def fft(x, /, *, n=None, axis=-1, norm="backward"):
    """The discrete Fourier transform.

    Args:
        x: Tensor with at least one dimension, real or complex.
        n: Number of points; `x` is cut or filled with zeros along the axis to have as many.
        axis: Axis to transform.
        norm: 'backward' (no scale), 'ortho' (`1/sqrt(n)`) or 'forward' (`1/n`).

    Returns:
        A complex tensor of the shape of `x`, `n` long along the axis.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.fft.fft(ek.ops.ones((4,))).dtype
    complex64
    """
    x, n = _prepared(x, n, axis, norm)
    y = [_scaled(part, n, norm) for part in ops.fft(_parts(x))]
    return ops.moveaxis(_complex(y), -1, axis)


@wrap
def ifft(x, /, *, n=None, axis=-1, norm="backward"):
    """The inverse of `fft`. Arguments as for it; 'backward' scales by `1/n`, 'forward' not."""
    x, n = _prepared(x, n, axis, norm)
    real, imag = _parts(x)
    # The inverse is the conjugate of the transform of the conjugate, over n.
    real, imag = ops.fft((real, ops.negative(imag)))
    scale = {"backward": 1.0 / n, "ortho": n**-0.5, "forward": 1.0}[norm]
    return ops.moveaxis(_complex([real * scale, ops.negative(imag) * scale]), -1, axis)


@wrap
def rfft(x, /, *, n=None, axis=-1, norm="backward"):
    """The first half of the discrete Fourier transform of a real tensor; the rest mirrors it.

    Args:
        x: Real tensor with at least one dimension.
        n: Number of points; `x` is cut or filled with zeros along the axis to have as many.
        axis: Axis to transform.
        norm: As for `fft`.

    Returns:
        A complex tensor, `n // 2 + 1` long along the axis.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.fft.rfft(ek.ops.ones((2, 7))).shape
    (2, 4)
    """
    x, n = _prepared(x, n, axis, norm)
    if isdtype(x.dtype, "complex floating"):
        raise ValueError(f"Received a tensor of dtype {x.dtype}. Expected a real one. Use `fft`.")
    y = [_scaled(part, n, norm) for part in ops.rfft(_floating(x))]
    return ops.moveaxis(_complex(y), -1, axis)


@wrap
def irfft(x, /, *, n=None, axis=-1, norm="backward"):
    """The inverse of `rfft`: a real tensor.

    Args:
        x: Complex tensor, `n // 2 + 1` long along the axis; cut or filled with zeros to be so.
        n: Number of points of the result, by default even: `2 * (size - 1)`.
        axis: Axis to transform.
        norm: As for `ifft`.

    Returns:
        A real tensor, `n` long along the axis.
    """
    size = as_backend_tensor(x).shape[axis]
    n = 2 * (size - 1) if n is None else n
    x, _ = _prepared(x, n // 2 + 1, axis, norm)
    y = ops.irfft(_parts(x), fft_length=n)
    scale = {"backward": 1.0, "ortho": n**0.5, "forward": float(n)}[norm]
    return ops.moveaxis(y if norm == "backward" else y * scale, -1, axis)
