"""Gated linear attention in chunks, with a decay for each channel of the keys.

Letters: q, k ``(B, N, H, C, K)``, v ``(B, N, H, C, V)``, states ``(B, N, H, K, V)``.
"""

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.engines import chunks, decays
from ember_keras.ops.kernels.gradient import with_gradient


def run(q, k, v, log_decay, initial, run=None, *, exclusive=False):
    """Return ``(o, state)``; its own gradient keeps the inputs and the states between chunks.

    Args:
        q: ``(B, N, H, C, K)``.
        k: ``(B, N, H, C, K)``.
        v: ``(B, N, H, C, V)``.
        log_decay: ``(B, N, H, C, K)``, at most 0.
        initial: ``(B, H, K, V)``.
        run: int32 ``(B, N, C)`` or None, the runs of packed sequences.
        exclusive: bool. A position reads the state before itself.

    Returns:
        o ``(B, N, H, C, V)`` and the last state ``(B, H, K, V)``.
    """

    def prepare(q, log_decay, run):
        seen = chunks.sight(run, int(q.shape[-2]), q.dtype, strict=exclusive)
        # Of weak decays a sum of logs keeps what a product of many factors near 1 would lose.
        whole = ops.exp(ops.sum(log_decay, axis=-2, keepdims=True))
        before = ops.exp(chunks.running_sum(log_decay, -2, exclusive=exclusive))
        after = ops.exp(chunks.running_sum(log_decay, -2, reverse=True, exclusive=True))
        keep = chunks.only(ops.swapaxes(whole, -1, -2), seen.keeps)
        read, write = chunks.only(before, seen.reads), chunks.only(after, seen.writes)
        return seen.pairs, decays.halve(ops.exp(log_decay), exclusive), read, write, keep

    def forward(q, k, v, log_decay, initial, run=None):
        pairs, levels, read, write, keep = prepare(q, log_decay, run)
        update = ops.matmul(ops.swapaxes(k * write, -1, -2), v)
        before, last = chunks.carry(keep, update, initial)
        scores = decays.products(q, k, levels, diagonal=not exclusive) * pairs
        return (ops.matmul(scores, v) + ops.matmul(q * read, before), last), (before,)

    def backward(inputs, kept, cotangent):
        q, k, v, log_decay, *run = inputs
        (before,), (slope, last_slope) = kept, cotangent
        pairs, levels, read, write, keep = prepare(q, log_decay, *(run or (None,)))
        toward = ops.matmul(ops.swapaxes(q * read, -1, -2), slope)
        after, first = chunks.carry_back(keep, toward, last_slope)
        scores = decays.products(q, k, levels, diagonal=not exclusive) * pairs
        pair_slope = ops.matmul(slope, ops.swapaxes(v, -1, -2)) * pairs
        dv = ops.matmul(ops.swapaxes(scores, -1, -2), slope) + ops.matmul(k * write, after)
        dq_read = ops.matmul(slope, ops.swapaxes(before, -1, -2)) * read
        dk_write = ops.matmul(v, ops.swapaxes(after, -1, -2)) * write
        near = decays.undecayed(int(q.shape[-2]), exclusive)
        none = ops.zeros_like(pair_slope)
        beside = ops.sum(ops.where(near, pair_slope, none), axis=-1, keepdims=True)
        dq, dk = decays.products_back(q, k, levels, ops.where(near, none, pair_slope))
        keep_slope = ops.swapaxes(ops.sum(before * after * keep, axis=-1, keepdims=True), -1, -2)
        decay_slope = log_decay_slope(
            q * (dq + dq_read), k * dk, k * dk_write, keep_slope, exclusive
        )
        dq, dk = dq + dq_read, dk + dk_write
        if exclusive:
            rest = ((0, 0),) * 3
            dq = dq + beside * pad(k[..., :-1, :], (*rest, (1, 0), (0, 0)))
            dk = dk + pad((beside * q)[..., 1:, :], (*rest, (0, 1), (0, 0)))
        else:
            dq, dk = dq + beside * k, dk + beside * q
        return (dq, dk, dv, decay_slope, first, *(None for _ in run))

    tensors = (q, k, v, log_decay, initial) + (() if run is None else (run,))
    saved = (0, 1, 2, 3, 5)[: len(tensors) - 1]
    return with_gradient(forward, backward, saved=saved)(*tensors)


def log_decay_slope(reads, keys, writes, keeps, exclusive):
    """Return the gradient of the log decays of a chunk, from what each of them scales.

    Args:
        reads: ``(..., C, K)``, queries times their gradients: a decay scales those at and after it.
        keys: ``(..., C, K)``, keys times their gradients inside the chunk: those at and after a
            position are not scaled by it, and are subtracted.
        writes: ``(..., C, K)``, keys times their gradients through the state after the chunk:
            a decay scales those before it.
        keeps: ``(..., 1, K)``, the state before times its gradient through the state after.
        exclusive: bool. A query is not scaled by the decay of its own position.
    """
    sums = chunks.running_sum
    if exclusive:
        slope = sums(reads, -2, reverse=True, exclusive=True) - sums(keys, -2, reverse=True)
    else:
        slope = sums(reads - keys, -2, reverse=True)
    return slope + sums(writes, -2, exclusive=True) + keeps
