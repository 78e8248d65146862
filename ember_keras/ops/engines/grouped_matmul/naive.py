"""The grouped matrix product in numpy, float64, one row at a time: the reference."""

import numpy as np


def grouped_matmul(x, w, offsets):
    """See `ember_keras.ops.engines.grouped_matmul.grouped_matmul`."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    offsets = np.asarray(offsets)
    y = np.zeros((x.shape[0], w.shape[2]))
    for group in range(w.shape[0]):
        for row in range(offsets[group], offsets[group + 1]):
            y[row] = x[row] @ w[group]
    return y
