"""Filters of a few taps on torch and a CPU: shifts in place, block after block in the cache.

Written out in `torch`, each tap is a product, a sum, and as much again backwards, each with a
tensor of its own that goes through memory. Here a block of positions is read once, all taps are
added to it where it lies, and the gradient is made the same way.
"""

import torch

from ember_keras.ops.kernels.gradient import with_gradient

BLOCK = 2**19
"""Numbers in a block: two megabytes, which the cache holds with what is added to them."""


def run(u, weights, shifts, length):
    """Return ``y_j = sum_i w_i u_{j + shift_i}`` for ``0 <= j < length``, with u 0 outside.

    Args:
        u: tensor ``(B, N, D)``.
        weights: tensor ``(W, D)``.
        shifts: tuple of ``W`` int.
        length: int.
    """

    def forward(u, weights):
        return _add(u, weights, shifts, length), ()

    def backward(inputs, _, g):
        u, weights = inputs
        back = tuple(-shift for shift in shifts)
        if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
            return _plain(g, weights, back, u.shape[1]), _plain_weights(g, u, shifts)
        return _add(g, weights, back, u.shape[1]), _add_weights(g, u, shifts)

    return with_gradient(forward, backward, saved=(0, 1))(u, weights)


def _add(u, weights, shifts, length):
    y = u.new_empty(u.shape[0], length, u.shape[2])
    for row, start, stop in _blocks(y):
        taps = [
            (weight, shift, *_seen(u, shift, start, stop))
            for weight, shift in zip(weights.unbind(0), shifts, strict=True)
        ]
        weight, shift, *seen = taps[0]
        if seen == [start, stop]:
            torch.mul(u[row, start + shift : stop + shift], weight, out=y[row, start:stop])
            del taps[0]
        else:
            y[row, start:stop].zero_()
        for weight, shift, first, last in taps:
            if first < last:
                y[row, first:last].addcmul_(u[row, first + shift : last + shift], weight)
    return y


def _add_weights(g, u, shifts):
    found = u.new_zeros(len(shifts), u.shape[2])
    for row, start, stop in _blocks(g):
        for at, shift in enumerate(shifts):
            first, last = _seen(u, shift, start, stop)
            if first < last:
                both = g[row, first:last] * u[row, first + shift : last + shift]
                found[at].add_(both.sum((0, 1)))
    return found


def _plain(u, weights, shifts, length):
    return sum(
        _moved(u, shift, length) * weight
        for weight, shift in zip(weights.unbind(0), shifts, strict=True)
    )


def _plain_weights(g, u, shifts):
    return torch.stack([(g * _moved(u, shift, g.shape[1])).sum((0, 1)) for shift in shifts])


def _moved(u, shift, length):
    """Return ``u_{j + shift}`` for ``0 <= j < length``."""
    first, last = _seen(u, shift, 0, length)
    if first >= last:
        return u.new_zeros(u.shape[0], length, u.shape[2])
    return torch.nn.functional.pad(u[:, first + shift : last + shift], (0, 0, first, length - last))


def _seen(u, shift, start, stop):
    """The positions j of a block for which u has a position ``j + shift``."""
    return max(start, -shift), min(stop, u.shape[1] - shift)


def _blocks(y):
    """Rows and ranges of positions of `y` ``(B, T, D)`` that stay in a cache."""
    rows, time, width = y.shape
    size = min(time, max(1, BLOCK // max(1, width)))
    together = max(1, BLOCK // max(1, time * width))
    for row in range(0, rows, together):
        for start in range(0, time, size):
            yield slice(row, row + together), start, min(start + size, time)
