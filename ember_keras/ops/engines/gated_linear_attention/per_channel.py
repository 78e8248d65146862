"""Gated linear attention in chunks, with a decay for each channel of the keys.

The product of a query and a key is weighed by another decay in each channel, so it is not the
product of two vectors times a number; and dividing the cumulative decays of the one by those of the
other overflows where decays are strong (GLA, arXiv 2312.06635, section 4). Here a chunk is halved
again and again: between the left and the right half, what decays from the key to the middle belongs
to the key, and what decays from the middle to the query belongs to the query. Both are products of
decays, at most 1: nothing overflows and nothing is divided, however strong they are. That makes
log2(C) matrix products.

Letters: q, k ``(B, N, H, C, K)``, v ``(B, N, H, C, V)``, states ``(B, N, H, K, V)``.
"""

from keras import ops

from ember_keras.ops.engines import chunks
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
        return seen.pairs, halve(ops.exp(log_decay), exclusive), read, write, keep

    def forward(q, k, v, log_decay, initial, run=None):
        pairs, levels, read, write, keep = prepare(q, log_decay, run)
        update = ops.matmul(ops.swapaxes(k * write, -1, -2), v)
        before, last = chunks.carry(keep, update, initial)
        scores = products(q, k, levels, diagonal=not exclusive) * pairs
        return (ops.matmul(scores, v) + ops.matmul(q * read, before), last), (before,)

    def backward(inputs, kept, cotangent):
        q, k, v, log_decay, *run = inputs
        (before,), (slope, last_slope) = kept, cotangent
        pairs, levels, read, write, keep = prepare(q, log_decay, *(run or (None,)))
        toward = ops.matmul(ops.swapaxes(q * read, -1, -2), slope)
        after, first = chunks.carry_back(keep, toward, last_slope)
        scores = products(q, k, levels, diagonal=not exclusive) * pairs
        pair_slope = ops.matmul(slope, ops.swapaxes(v, -1, -2)) * pairs
        dv = ops.matmul(ops.swapaxes(scores, -1, -2), slope) + ops.matmul(k * write, after)
        dq_read = ops.matmul(slope, ops.swapaxes(before, -1, -2)) * read
        dk_write = ops.matmul(v, ops.swapaxes(after, -1, -2)) * write
        dq, dk = products_back(q, k, levels, pair_slope)
        keep_slope = ops.swapaxes(ops.sum(before * after * keep, axis=-1, keepdims=True), -1, -2)
        decay_slope = log_decay_slope(
            q * (dq + dq_read), k * dk, k * dk_write, keep_slope, exclusive
        )
        dq, dk = dq + dq_read, dk + dk_write
        if not exclusive:
            here = ops.sum(slope * v, axis=-1, keepdims=True)
            dq, dk = dq + here * k, dk + here * q
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
