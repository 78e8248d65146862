"""The kernel on the memory of arrays: numpy, and tensorflow and mlx where they run eagerly.

Inputs are read where they lie. numpy keeps the result as it is; tensorflow and mlx copy it once.
"""

import os

import numpy as np
from keras import ops

from ember_keras import backend
from ember_keras.cuda import library
from ember_keras.ops.kernels.complex_fft import gradients
from ember_keras.ops.kernels.gradient import with_gradient

EAGER = True

_LIBRARY = library.load()[0]


def run(u, k, d, start, length, skip, fft_length):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""

    def forward(u, *filters):
        arrays, kind = _arrays(u, filters)
        options = {"start": start, "length": length, "skip": skip, "threads": _threads(), **kind}
        return _tensor(_LIBRARY.forward(*arrays, **options), u), ()

    def backward(inputs, _, g):
        # In the library's own functions: it does not tell whether they are differentiated again.
        inputs, count = (*inputs, None)[:3], len(inputs)
        found = gradients(*inputs, g, start=start, skip=skip, fft_length=fft_length)
        return found[:count]

    filters = (k,) if d is None else (k, d)
    return with_gradient(forward, backward, saved=tuple(range(1 + len(filters))))(u, *filters)


def _arrays(u, filters):
    """Return the arrays of u and of its filters, and what the library must be told of them."""
    u = backend.to_numpy(u)
    kind = np.float64 if u.dtype == np.float64 else np.float32
    filters = [np.ascontiguousarray(backend.to_numpy(x), kind) for x in filters]
    if u.dtype.name != "bfloat16":
        return [u, *filters], {}
    return [u.view(np.uint16), *filters], {"dtype": "bfloat16"}


def _tensor(array, like):
    """Return an array as a tensor; 16 bits of a bfloat16 are those of `like`."""
    kind = backend.to_numpy(like[:0]).dtype
    bits = array.dtype == np.uint16 and kind.name == "bfloat16"
    return ops.convert_to_tensor(array.view(kind) if bits else array)


def _threads():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
