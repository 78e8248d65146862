"""The kernel on numpy's arrays."""

import numpy as np

from ember_keras.cuda import grouped, library

_KERNEL = grouped.load()[0]


def run(x, w, offsets):
    """Return ``(M, F)``; see `ember_keras.ops.grouped_matmul`."""
    x, w = (np.ascontiguousarray(each, np.float32) for each in (x, w))
    offsets = np.ascontiguousarray(offsets, np.int32)
    y = np.empty((x.shape[0], w.shape[2]), np.float32)
    _KERNEL.rows(x, w, offsets, y, threads=library.cores())
    return y
