"""Gated linear attention in chunks, with one decay for each head (SSD, arXiv 2405.21060).

Heads of a group share queries and keys, whose products are computed once for the group: the decays
between two positions are a matrix of their own, and multiply the products.

Letters: ``G`` groups of ``R`` heads; q, k ``(B, N, G, C, K)``, v ``(B, N, G, R, C, V)``, log decays
``(B, N, G, R, C)``, states ``(B, N, G, R, K, V)``.
"""

from keras import ops

from ember_keras.ops.engines import chunks, decays
from ember_keras.ops.kernels.gradient import with_gradient


def run(q, k, v, log_decay, initial, run=None, *, exclusive=False):
    """Return ``(o, state)``; its own gradient keeps the inputs and the states between chunks.

    Args:
        q: ``(B, N, G, C, K)``.
        k: ``(B, N, G, C, K)``.
        v: ``(B, N, G, R, C, V)``.
        log_decay: ``(B, N, G, R, C)``, at most 0.
        initial: ``(B, G, R, K, V)``.
        run: int32 ``(B, N, C)`` or None, the runs of packed sequences.
        exclusive: bool. A position reads the state before itself.

    Returns:
        o ``(B, N, G, R, C, V)`` and the last state ``(B, G, R, K, V)``.
    """

    def forward(q, k, v, log_decay, initial, *run):
        left = _decays(log_decay, *run, exclusive=exclusive)
        update = ops.einsum("bngck,bngrcv->bngrkv", k, v * left.write)
        before, last = chunks.carry(left.keep, update, initial)
        scores = _products(q, k) * left.pairs
        read = ops.einsum("bngck,bngrkv->bngrcv", q, before) * left.read
        return (ops.matmul(scores, v) + read, last), (before,)

    def backward(inputs, kept, cotangent):
        q, k, v, log_decay, *run = inputs
        (before,), (slope, last_slope) = kept, cotangent
        left = _decays(log_decay, *run, exclusive=exclusive)
        read_slope = slope * left.read
        toward = ops.einsum("bngck,bngrcv->bngrkv", q, read_slope)
        after, first = chunks.carry_back(left.keep, toward, last_slope)
        products = _products(q, k)
        scores = products * left.pairs
        pair_slope = ops.matmul(slope, ops.swapaxes(v, -1, -2)) * left.pairs
        product_slope = ops.sum(pair_slope, axis=3)
        written = ops.einsum("bngck,bngrkv->bngrcv", k, after) * left.write
        dv = ops.matmul(ops.swapaxes(scores, -1, -2), slope) + written
        dq = ops.matmul(product_slope, k)
        dq = dq + ops.einsum("bngrcv,bngrkv->bngck", read_slope, before)
        dk = ops.matmul(ops.swapaxes(product_slope, -1, -2), q)
        dk = dk + ops.einsum("bngrcv,bngrkv->bngck", v * left.write, after)
        # A log decay scales every pair it lies between, every read after and write before it,
        # and what is kept.
        between = pair_slope * products
        near = decays.undecayed(int(q.shape[-2]), exclusive)
        between = ops.where(near, ops.zeros_like(between), between)
        here = ops.einsum("bngck,bngrkv->bngrcv", q, before)
        reads = ops.sum(between, axis=-1) + ops.sum(here * read_slope, axis=-1)
        keys = ops.sum(between, axis=-2)
        writes = ops.sum(written * v, axis=-1)
        kept = ops.sum(before * after * left.keep, axis=(-2, -1))[..., None]
        sums = chunks.running_sum
        slope = sums(reads, -1, reverse=True, exclusive=exclusive) - sums(keys, -1, reverse=True)
        slope = slope + sums(writes, -1, exclusive=True) + kept
        return (dq, dk, dv, slope, first, *(None for _ in run))

    tensors = (q, k, v, log_decay, initial) + (() if run is None else (run,))
    saved = (0, 1, 2, 3, 5)[: len(tensors) - 1]
    return with_gradient(forward, backward, saved=saved)(*tensors)


def _products(q, k):
    return ops.expand_dims(ops.matmul(q, ops.swapaxes(k, -1, -2)), 3)


def _decays(log_decay, run=None, *, exclusive):
    """Return the `decays.Between` of the chunks, 0 across the borders of runs."""
    seen = chunks.sight(run, int(log_decay.shape[-1]), log_decay.dtype, strict=exclusive)
    pairs, read, write, keep = decays.between(log_decay, exclusive)
    return decays.Between(
        pairs * seen.pairs[:, :, None],
        chunks.only(read, _flags(seen.reads)),
        chunks.only(write, _flags(seen.writes)),
        chunks.only(keep, _flags(seen.keeps)),
    )


def _flags(flags):
    return None if flags is None else flags[:, :, None]
