"""A head and its cross-entropy in numpy, float64, one position at a time: the reference."""

import numpy as np


def linear_cross_entropy(x, w, targets, bias=None, logit_cap=None):
    """See `ember_keras.ops.engines.linear_cross_entropy.linear_cross_entropy`."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    targets = np.asarray(targets)
    losses = np.zeros(targets.shape)
    for row in range(x.shape[0]):
        for position in range(x.shape[1]):
            logits = _logits(x[row, position], w, bias, logit_cap)
            losses[row, position] = -np.log(_softmax(logits)[targets[row, position]])
    return losses


def gradients(x, w, targets, g, bias=None, logit_cap=None):
    """The gradients of x, w and bias, for a cotangent `g` ``(B, T)``."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w))
    for row in range(x.shape[0]):
        for position in range(x.shape[1]):
            here = x[row, position]
            logits = _logits(here, w, bias, logit_cap)
            slope = _softmax(logits)
            slope[targets[row, position]] -= 1.0
            slope *= g[row, position]
            if logit_cap is not None:
                slope *= 1.0 - (logits / logit_cap) ** 2
            dx[row, position] = slope @ w
            dw += np.outer(slope, here)
            db += slope
    return dx, dw, db


def _logits(x, w, bias, logit_cap):
    logits = w @ x if bias is None else w @ x + bias
    return logits if logit_cap is None else logit_cap * np.tanh(logits / logit_cap)


def _softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()
