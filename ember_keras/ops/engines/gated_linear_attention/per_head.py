"""Gated linear attention in chunks, with one decay for each head (SSD, arXiv 2405.21060).

Heads of a group share queries and keys, whose products are computed once for the group: the decays
between two positions are a matrix of their own, and multiply the products.

Letters: ``G`` groups of ``R`` heads; q, k ``(B, N, G, C, K)``, v ``(B, N, G, R, C, V)``, log decays
``(B, N, G, R, C)``, states ``(B, N, G, R, K, V)``.
"""

from typing import Any, NamedTuple

from keras import ops

from ember_keras.ops.engines import chunks
from ember_keras.ops.kernels.gradient import with_gradient


class Decays(NamedTuple):
    """What is left of one position at another, by the log decays between them.

    Attributes:
        pairs: ``(B, N, G, R, C, C)``, of the column's at the row's, 0 where not seen.
        read: ``(B, N, G, R, C, 1)``, of the state before the chunk at each position.
        write: ``(B, N, G, R, C, 1)``, of each position after the chunk.
        keep: ``(B, N, G, R, 1, 1)``, of the state before the chunk after it.
    """

    pairs: Any
    read: Any
    write: Any
    keep: Any


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
        decays = _decays(log_decay, *run, exclusive=exclusive)
        update = ops.einsum("bngck,bngrcv->bngrkv", k, v * decays.write)
        before, last = chunks.carry(decays.keep, update, initial)
        scores = _products(q, k) * decays.pairs
        read = ops.einsum("bngck,bngrkv->bngrcv", q, before) * decays.read
        return (ops.matmul(scores, v) + read, last), (before,)

    def backward(inputs, kept, cotangent):
        q, k, v, log_decay, *run = inputs
        (before,), (slope, last_slope) = kept, cotangent
        decays = _decays(log_decay, *run, exclusive=exclusive)
        read_slope = slope * decays.read
        toward = ops.einsum("bngck,bngrcv->bngrkv", q, read_slope)
        after, first = chunks.carry_back(decays.keep, toward, last_slope)
        products = _products(q, k)
        scores = products * decays.pairs
        pair_slope = ops.matmul(slope, ops.swapaxes(v, -1, -2)) * decays.pairs
        product_slope = ops.sum(pair_slope, axis=3)
        written = ops.einsum("bngck,bngrkv->bngrcv", k, after) * decays.write
        dv = ops.matmul(ops.swapaxes(scores, -1, -2), slope) + written
        dq = ops.matmul(product_slope, k)
        dq = dq + ops.einsum("bngrcv,bngrkv->bngck", read_slope, before)
        dk = ops.matmul(ops.swapaxes(product_slope, -1, -2), q)
        dk = dk + ops.einsum("bngrcv,bngrkv->bngck", v * decays.write, after)
        # A log decay scales every pair it lies between, every read after and write before it,
        # and what is kept.
        between = pair_slope * products
        here = ops.einsum("bngck,bngrkv->bngrcv", q, before)
        reads = ops.sum(between, axis=-1) + ops.sum(here * read_slope, axis=-1)
        keys = ops.sum(between, axis=-2)
        writes = ops.sum(written * v, axis=-1)
        kept = ops.sum(before * after * decays.keep, axis=(-2, -1))[..., None]
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
    size = int(log_decay.shape[-1])
    dtype = log_decay.dtype
    seen = chunks.sight(run, size, dtype, strict=exclusive)
    coarse, fine = chunks.log_sums(log_decay)
    read_coarse, read_fine = coarse, fine
    if exclusive:
        read_coarse, read_fine = _before(coarse), _before(fine)
    gap = read_coarse[..., :, None] - coarse[..., None, :]
    gap = gap + (read_fine[..., :, None] - fine[..., None, :])
    pairs = ops.exp(ops.minimum(gap, ops.zeros_like(gap))) * seen.pairs[:, :, None]
    end = coarse[..., -1:] - coarse + (fine[..., -1:] - fine)
    return Decays(
        pairs,
        chunks.only(ops.exp(read_coarse + read_fine)[..., None], _flags(seen.reads)),
        chunks.only(ops.exp(end)[..., None], _flags(seen.writes)),
        chunks.only(ops.exp(coarse[..., -1:] + fine[..., -1:])[..., None], _flags(seen.keeps)),
    )


def _before(x):
    return ops.pad(x[..., :-1], [(0, 0)] * (len(x.shape) - 1) + [(1, 0)])


def _flags(flags):
    return None if flags is None else flags[:, :, None]
