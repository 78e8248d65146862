"""The kernel on numpy's arrays, read where they lie."""

import numpy as np

from ember_keras.cuda import library

_LIBRARY = library.load()[0]


def run(u, k, d, start, length, skip, fft_length, gate_in=None, gate_out=None):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    kind = np.float64 if u.dtype == np.float64 else np.float32
    k = np.asarray(k, kind)
    d = None if d is None else np.ascontiguousarray(d, kind)
    gates = [None if gate is None else np.asarray(gate) for gate in (gate_in, gate_out)]
    options = {"start": start, "length": length, "skip": skip, "threads": library.cores()}
    if u.dtype.name != "bfloat16":
        return _LIBRARY.forward(np.asarray(u), k, d, *gates, **options)
    bits = np.asarray(u).view(np.uint16)
    gates = [None if gate is None else gate.view(np.uint16) for gate in gates]
    return _LIBRARY.forward(bits, k, d, *gates, dtype="bfloat16", **options).view(u.dtype)
