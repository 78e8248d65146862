"""Gated linear attention in chunks, with one decay for each head (SSD, arXiv 2405.21060).

Heads of a group share queries and keys, whose products are computed once for the group: the decays
between two positions are a matrix of their own, and multiply the products.

Letters: ``G`` groups of ``R`` heads; q, k ``(B, N, G, C, K)``, v ``(B, N, G, C, R, V)``, log
decays ``(B, N, G, R, C)``, states ``(B, N, G, K, R, V)``: what all heads of a group write and read
is one matrix product, in the layout that values have already.
"""

from keras import ops

from ember_keras.ops.engines import chunks, decays
from ember_keras.ops.kernels.gradient import with_gradient


def run(q, k, v, log_decay, initial, sight=(), *, exclusive=False):
    """Return ``(o, state)``; its own gradient keeps the inputs and the states between chunks.

    Args:
        q: ``(B, N, G, C, K)``.
        k: ``(B, N, G, C, K)``.
        v: ``(B, N, G, C, R, V)``.
        log_decay: ``(B, N, G, R, C)``, at most 0.
        initial: ``(B, G, K, R, V)``.
        sight: the tensors of the `chunks.Sight` of packed sequences; empty for one sequence a row.
        exclusive: bool. A position reads the state before itself.

    Returns:
        o ``(B, N, G, C, R, V)`` and the last state ``(B, G, K, R, V)``.
    """

    def forward(q, k, v, log_decay, initial, *sight):
        left = _decays(log_decay, sight, exclusive)
        update = _times(_turned(k), v * left.write)
        before, last = chunks.carry(left.keep, update, initial)
        scores = _products(q, k) * left.pairs
        inside = _swapped(ops.matmul(scores, _swapped(v)))
        return (inside + _times(q, before) * left.read, last), (before,)

    def backward(inputs, kept, cotangent):
        q, k, v, log_decay, *sight = inputs
        (before,), (slope, last_slope) = kept, cotangent
        left = _decays(log_decay, sight, exclusive)
        read_slope, write_v = slope * left.read, v * left.write
        after, first = chunks.carry_back(left.keep, _times(_turned(q), read_slope), last_slope)
        products = _products(q, k)
        scores = products * left.pairs
        head_slope = _swapped(slope)
        pair_slope = ops.matmul(head_slope, _turned(_swapped(v))) * left.pairs
        product_slope = ops.sum(pair_slope, axis=3)
        written = _times(k, after) * left.write
        dv = _swapped(ops.matmul(_turned(scores), head_slope)) + written
        dq = ops.matmul(product_slope, k) + _against(read_slope, before)
        dk = ops.matmul(_turned(product_slope), q) + _against(write_v, after)
        # A log decay scales every pair it lies between, every read after and write before it,
        # and what is kept.
        between = pair_slope * products
        near = decays.undecayed(int(q.shape[-2]), exclusive)
        between = ops.where(near, ops.zeros_like(between), between)
        here = ops.sum(_times(q, before) * read_slope, axis=-1)
        reads = ops.sum(between, axis=-1) + _turned(here)
        keys = ops.sum(between, axis=-2)
        writes = _turned(ops.sum(written * v, axis=-1))
        kept = ops.sum(before * after * left.keep, axis=(3, 5))[..., None]
        sums = chunks.running_sum
        slope = sums(reads, -1, reverse=True, exclusive=exclusive) - sums(keys, -1, reverse=True)
        slope = slope + sums(writes, -1, exclusive=True) + kept
        return (dq, dk, dv, slope, first, *(None for _ in sight))

    saved = (0, 1, 2, 3, *range(5, 5 + len(sight)))
    return with_gradient(forward, backward, saved=saved)(q, k, v, log_decay, initial, *sight)


def _times(x, y):
    """Return ``x y`` of ``(..., M, L)`` and ``(..., L, R, V)``, for all heads at once."""
    heads, width = int(y.shape[-2]), int(y.shape[-1])
    product = ops.matmul(x, ops.reshape(y, (-1, *y.shape[1:-2], heads * width)))
    return ops.reshape(product, (-1, *product.shape[1:-1], heads, width))


def _against(x, y):
    """Return ``x y^T`` of ``(..., M, R, V)`` and ``(..., L, R, V)``, summed over the heads."""
    x, y = (ops.reshape(z, (-1, *z.shape[1:-2], z.shape[-2] * z.shape[-1])) for z in (x, y))
    return ops.matmul(x, _turned(y))


def _turned(x):
    return ops.swapaxes(x, -1, -2)


def _swapped(x):
    """Return ``(..., C, R, V)`` as ``(..., R, C, V)``, or the other way round."""
    return ops.swapaxes(x, -2, -3)


def _products(q, k):
    return ops.expand_dims(ops.matmul(q, _turned(k)), 3)


def _decays(log_decay, sight, exclusive):
    """Return the `decays.Between` of the chunks, 0 across the borders of runs.

    Pairs are ``(B, N, G, R, C, C)``; the others broadcast to ``(B, N, G, C, R, V)``.
    """
    size = int(log_decay.shape[-1])
    seen = chunks.Sight(*sight or chunks.sight(None, size, log_decay.dtype, strict=exclusive))
    pairs, *others = decays.between(log_decay, exclusive, seen.pairs[:, :, None] > 0)
    read, write, keep = (_swapped(x) for x in others)
    return decays.Between(
        pairs,
        chunks.only(read, _flags(seen.reads)),
        chunks.only(write, _flags(seen.writes)),
        chunks.only(keep, _flags(seen.keeps)),
    )


def _flags(flags):
    return None if flags is None else flags[..., None]
