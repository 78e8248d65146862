"""Decays between the positions of a chunk: one a head, or one a channel.

With one decay a head, what is left of one position at another is a matrix that weighs the products
of queries and keys: `between`.

With a decay for each channel of the keys it is not: the product of a query and a key is weighed by
another decay in each channel, and dividing the cumulative decays of the one by those of the other
overflows where decays are strong (GLA, arXiv 2312.06635, section 4). Here a chunk is halved again
and again: between the left and the right half, what decays from the key to the middle belongs to
the key, and what decays from the middle to the query belongs to the query. Both are products of
decays, at most 1: nothing overflows and nothing is divided, however strong they are. That makes
log2(C) matrix products: `halve`, `products` and `products_back`.
"""

import math
from typing import Any, NamedTuple

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.engines.chunks import running_sum

FLOOR = -100.0
"""A log decay below it is as good as it: ``exp(-100)`` is 3.8e-44, a subnormal of float32."""

GRID = 2.0**10
"""`log_sums` splits log decays at multiples of ``1 / GRID``."""


class Between(NamedTuple):
    """What is left by log decays ``(..., C)``, one a head.

    Attributes:
        pairs: ``(..., C, C)``, of the column's position at the row's; 0 where it is not seen.
        read: ``(..., C, 1)``, of the state before the chunk at each position.
        write: ``(..., C, 1)``, of each position after the chunk.
        keep: ``(..., 1, 1)``, of the state before the chunk after it.
    """

    pairs: Any
    read: Any
    write: Any
    keep: Any


def between(log_decay, exclusive=False, sees=None):
    """Return the `Between` of log decays ``(..., C)`` in ``[FLOOR, 0]``, or above 0 by rounding.

    Args:
        log_decay: tensor.
        exclusive: bool. A row does not decay at its own position.
        sees: bool, broadcasts to ``(..., C, C)``: False where a pair is 0. None is False where the
            column is later than the row, or with `exclusive` not earlier.
    """
    near = undecayed(int(log_decay.shape[-1]), exclusive)
    if sees is None:
        at = ops.arange(int(log_decay.shape[-1]), dtype="int32")
        sees = at[:, None] > at[None, :] if exclusive else at[:, None] >= at[None, :]
    coarse, fine = log_sums(log_decay)
    read_coarse, read_fine = (_before(x) if exclusive else x for x in (coarse, fine))
    gap = read_coarse[..., :, None] - coarse[..., None, :]
    gap = gap + (read_fine[..., :, None] - fine[..., None, :])
    # What does not decay is not left to the sums: its gradient would be what rounding leaves.
    rest = ops.cast(ops.where(ops.logical_and(sees, near), 0.0, -math.inf), log_decay.dtype)
    # Sums from one end have one sign: nothing cancels in them, nor in their gradients.
    return Between(
        ops.exp(ops.where(ops.logical_and(sees, ops.logical_not(near)), gap, rest)),
        ops.exp(running_sum(log_decay, -1, exclusive=exclusive))[..., None],
        ops.exp(running_sum(log_decay, -1, reverse=True, exclusive=True))[..., None],
        ops.exp(ops.sum(log_decay, axis=-1, keepdims=True))[..., None],
    )


def undecayed(size, exclusive):
    """Return bool ``(C, C)``, True where no decay lies between the row and the column.

    A gradient of decays leaves these pairs out: they would enter two of its sums and cancel, up to
    a rounding that is large beside what strong decays leave.
    """
    at = ops.arange(size, dtype="int32")
    return at[:, None] - at[None, :] == (1 if exclusive else 0)


def _before(x):
    return pad(x[..., :-1], [(0, 0)] * (len(x.shape) - 1) + [(1, 0)])


def log_sums(log_decay):
    """Return cumulative sums of log decays whose differences are exact to rounding.

    A plain float32 sum of 64 strong decays has an error that is large beside a weak one. Here the
    part of each term on a grid is summed apart, without any rounding, and the rest is small.

    Args:
        log_decay: tensor ``(..., C)`` in ``[FLOOR, 0]``, ``C <= 128``.

    Returns:
        ``(coarse, fine)`` of the same shape: ``L_t = coarse_t + fine_t``, where subtracting two
        coarse parts is exact.
    """
    coarse = ops.stop_gradient(ops.round(log_decay * GRID) / GRID)
    return running_sum(coarse, -1), running_sum(log_decay - coarse, -1)


def halve(decay, exclusive=False):
    """Return the products of decays that each halving of a chunk needs.

    Args:
        decay: ``(..., C, K)``, C a power of two.
        exclusive: bool. A query does not decay at its own position.

    Returns:
        A list with an entry for halves of ``h`` = 1, 2, .. C/2 positions, each a pair of
        ``(..., C / (2 h), h, K)``: the decay from the middle to each query of the right half, and
        from each key of the left half to the middle.
    """
    size = int(decay.shape[-2])
    through = ops.expand_dims(decay, -2)
    read = ops.ones_like(through) if exclusive else through
    write = ops.ones_like(through)
    levels, half = [], 1
    while half < size:
        (first_read, read), (write, last_write) = _pairs(read), _pairs(write)
        first, last = _pairs(through)
        levels.append((read, write))
        read = ops.concatenate([first_read, read * first], axis=-2)
        write = ops.concatenate([write * last, last_write], axis=-2)
        through = first * last
        half *= 2
    return levels


def products(q, k, levels, diagonal):
    """Return the decayed products ``(..., C, C)`` of queries and the keys before them.

    Args:
        q: ``(..., C, K)``.
        k: ``(..., C, K)``.
        levels: from `halve`.
        diagonal: bool. Also the products of a query with the key at its own position, undecayed.
    """
    own = ops.sum(q * k, axis=-1, keepdims=True)[..., None]
    blocks = own if diagonal else ops.zeros_like(own)
    for read, write in levels:
        q_right, k_left = _halves(q, read)[1], _halves(k, write)[0]
        corner = ops.matmul(q_right * read, ops.swapaxes(k_left * write, -1, -2))
        first, last = _pairs(blocks)
        top = ops.concatenate([first, ops.zeros_like(corner)], axis=-1)
        blocks = ops.concatenate([top, ops.concatenate([corner, last], axis=-1)], axis=-2)
    return ops.squeeze(blocks, -3)


def products_back(q, k, levels, slope):
    """Return the gradients of q and k in `products`, without those of its diagonal.

    Args:
        q: ``(..., C, K)``.
        k: ``(..., C, K)``.
        levels: from `halve`.
        slope: ``(..., C, C)``, the gradient of the products.
    """
    corners, blocks = [], ops.expand_dims(slope, -3)
    for _ in levels:
        half = int(blocks.shape[-1]) // 2
        corners.append(blocks[..., half:, :half])
        both = ops.stack([blocks[..., :half, :half], blocks[..., half:, half:]], axis=-3)
        shape = [int(n) for n in both.shape[1:]]
        blocks = ops.reshape(both, (-1, *shape[:-4], shape[-4] * 2, half, half))
    dq = dk = ops.zeros_like(ops.expand_dims(q, -2))
    for (read, write), corner in zip(levels, reversed(corners), strict=True):
        q_right, k_left = _halves(q, read)[1], _halves(k, write)[0]
        more_q = ops.matmul(corner, k_left * write) * read
        more_k = ops.matmul(ops.swapaxes(corner, -1, -2), q_right * read) * write
        (dq_left, dq_right), (dk_left, dk_right) = _pairs(dq), _pairs(dk)
        dq = ops.concatenate([dq_left, dq_right + more_q], axis=-2)
        dk = ops.concatenate([dk_left + more_k, dk_right], axis=-2)
    return ops.squeeze(dq, -3), ops.squeeze(dk, -3)


def _pairs(x):
    """Return the even and the odd of the blocks ``(..., M, h, w)``, each ``(..., M / 2, h, w)``."""
    shape = [int(n) for n in x.shape[1:]]
    x = ops.reshape(x, (-1, *shape[:-3], shape[-3] // 2, 2, *shape[-2:]))
    return x[..., 0, :, :], x[..., 1, :, :]


def _halves(x, like):
    """Return the left and the right half of each block of `x` ``(..., C, K)``, shaped as `like`."""
    shape = [int(n) for n in x.shape[1:]]
    blocks, half = int(like.shape[-3]), int(like.shape[-2])
    x = ops.reshape(x, (-1, *shape[:-2], blocks, 2, half, shape[-1]))
    return x[..., 0, :, :], x[..., 1, :, :]
