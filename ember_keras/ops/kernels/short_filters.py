"""Filters of a few taps in place on torch; see `torch_shifts`."""

from keras import ops

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.complex_fft import SHORT
from ember_keras.ops.kernels.shared_filters import repeated
from ember_keras.ops.kernels.table import Kernel, register


def _refuse(request):
    taps = request.shapes["k"][0]
    if taps > SHORT:
        return f"a filter of {taps} taps is applied by FFT, which is faster than shifts."
    return in_place.refusal(request)


def _run(u, k, d, *, start, length, skip, fft_length):
    from ember_keras.ops.kernels import torch_shifts

    kind = "float64" if "float64" in str(u.dtype) else "float32"
    u, weights = ops.cast(u, kind), repeated(ops.cast(k, kind), int(u.shape[2]))
    shifts = tuple(start - tap for tap in range(int(k.shape[0])))
    if d is not None:
        weights, shifts = ops.concatenate([weights, ops.cast(d, kind)[None]]), (*shifts, skip)
    return torch_shifts.run(u, weights, shifts, length)


register(
    Kernel(
        "torch_shifts",
        "fft_conv",
        ("torch",),
        _refuse,
        _run,
        "a few taps by shifts on a CPU, in place.",
    ),
    first=True,
)
