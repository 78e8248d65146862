"""The delta rule in chunks: a triangular inverse inside, a recurrence of matrices between.

``S_t = diag(a_t) S_{t-1} + w_t u_t^T + k_t v_t^T``, where ``u_t = S_{t-1}^T r_t + y_t`` reads the
state before it. Inside a chunk the reads depend on each other: ``(I - A) U = R S_0 + Y + B V`` with
the decayed products ``A`` of r with w and ``B`` of r with k before it. One inverse of a unit
triangular matrix, made of matrix products, gives them all (the WY form of DeltaNet, arXiv
2406.06484, with the decays of Gated DeltaNet, arXiv 2412.06464, and the diagonal plus low rank of
RWKV-7, arXiv 2503.14456). What a chunk does to the state is then one matrix, ``S_C = G S_0 + X``.

Letters: q, r, w, k ``(B, N, H, C, K)``, y, v ``(B, N, H, C, V)``, states ``(B, N, H, K, V)``.
"""

from keras import ops

from ember_keras.ops.engines import chunks, decays
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.loops import scan

UNROLLED = 32
"""Chunks up to which their states follow one another without a loop of the backend."""


def run(q, reads, writes, values, log_decay, initial, run=None, *, extra=None, late=False):
    """Return ``(o, state)``.

    Args:
        q: ``(B, N, H, C, K)``.
        reads: ``(B, N, H, C, K)``, r.
        writes: ``(B, N, H, C, K)``, w.
        values: ``(B, N, H, C, V)`` or None, y.
        log_decay: ``(B, N, H, C)`` or ``(B, N, H, C, K)``, at most 0.
        initial: ``(B, H, K, V)``.
        run: int32 ``(B, N, C)`` or None, the runs of packed sequences.
        extra: ``(k, v)`` or None, what is written beside.
        late: bool. r reads the state after the decay of its own position.

    Returns:
        o ``(B, N, H, C, V)`` and the last state ``(B, H, K, V)``.
    """
    sees = chunks.sight(run, int(q.shape[3]), q.dtype)
    before = chunks.sight(run, int(q.shape[3]), q.dtype, strict=True)
    product, read, write, keep = _weights(log_decay, late)
    read_q, read_r = (chunks.only(x, sees.reads) for x in read)
    write, keep = chunks.only(write, sees.writes), chunks.only(keep, sees.keeps)
    inverse = unit_inverse(product(reads, writes, own=False) * before.pairs)
    state_side = reads * read_r
    value_side = values
    if extra is not None:
        k, v = extra
        more = ops.matmul(product(reads, k, own=False) * before.pairs, v)
        value_side = more if values is None else values + more
    width = int(reads.shape[-1])
    solved = ops.matmul(inverse, ops.concatenate([state_side, value_side], axis=-1))
    from_state, from_values = solved[..., :width], solved[..., width:]
    written = ops.swapaxes(writes * write, -1, -2)
    transition = ops.matmul(written, from_state) + keep * _identity(width, q.dtype)
    update = ops.matmul(written, from_values)
    scores = product(q, writes, own=True) * sees.pairs
    query = q * read_q + ops.matmul(scores, from_state)
    out = ops.matmul(scores, from_values)
    if extra is not None:
        update = update + ops.matmul(ops.swapaxes(k * write, -1, -2), v)
        out = out + ops.matmul(product(q, k, own=True) * sees.pairs, v)
    states, last = carry(transition, update, initial)
    return out + ops.matmul(query, states), last


def _identity(width, dtype):
    at = ops.arange(width, dtype="int32")
    return ops.cast(at[:, None] == at[None, :], dtype)


def _weights(log_decay, late):
    """Return how products are decayed, and the decays to read, to write and to keep.

    Returns:
        ``(product, (read_q, read_r), write, keep)``: ``product(x, y, own)`` of queries (`own`) or
        reads x with what y wrote; keep ``(..., 1, K or 1)``.
    """
    if len(log_decay.shape) == 4:
        left = decays.between(log_decay)
        early = left if late else decays.between(log_decay, exclusive=True)

        def product(x, y, own):
            pairs = (left if own else early).pairs
            return ops.matmul(x, ops.swapaxes(y, -1, -2)) * pairs

        return product, (left.read, early.read), left.write, left.keep
    through = ops.exp(log_decay)
    levels = decays.halve(through)
    early_levels = levels if late else decays.halve(through, exclusive=True)

    def product(x, y, own):
        return decays.products(x, y, levels if own else early_levels, diagonal=own)

    sums = chunks.running_sum
    read = ops.exp(sums(log_decay, -2))
    early_read = read if late else ops.exp(sums(log_decay, -2, exclusive=True))
    write = ops.exp(sums(log_decay, -2, reverse=True, exclusive=True))
    keep = ops.exp(ops.sum(log_decay, axis=-2, keepdims=True))
    return product, (read, early_read), write, keep


def unit_inverse(lower):
    """Return the inverse of ``I - lower`` for a strictly lower triangular ``(..., C, C)``.

    By halves: the inverse of ``[[P, 0], [-L, Q]]`` is ``[[P', 0], [Q' L P', Q']]``.
    """
    size = int(lower.shape[-1])
    corners, blocks = [], ops.expand_dims(lower, -3)
    half = size // 2
    while half:
        corners.append(blocks[..., half:, :half])
        both = ops.stack([blocks[..., :half, :half], blocks[..., half:, half:]], axis=-3)
        shape = [int(n) for n in both.shape[1:]]
        blocks = ops.reshape(both, (-1, *shape[:-4], shape[-4] * 2, half, half))
        half //= 2
    inverse = ops.ones_like(blocks)
    for corner in reversed(corners):
        shape = [int(n) for n in inverse.shape[1:]]
        pairs = ops.reshape(inverse, (-1, *shape[:-3], shape[-3] // 2, 2, *shape[-2:]))
        first, last = pairs[..., 0, :, :], pairs[..., 1, :, :]
        corner = ops.matmul(last, ops.matmul(corner, first))
        top = ops.concatenate([first, ops.zeros_like(corner)], axis=-1)
        inverse = ops.concatenate([top, ops.concatenate([corner, last], axis=-1)], axis=-2)
    return ops.squeeze(inverse, -3)


def carry(transition, update, initial):
    """Run ``S_{n+1} = G_n S_n + X_n`` over the axis 1, matrices ``G_n``.

    Args:
        transition: ``(B, N, H, K, K)``, G.
        update: ``(B, N, H, K, V)``, X.
        initial: ``(B, H, K, V)``.

    Returns:
        ``(before, last)``: every ``S_n`` for n < N ``(B, N, H, K, V)``, and ``S_N``.
    """

    def forward(transition, update, initial):
        before, last = _follow(transition, update, initial)
        return (before, last), ()

    def backward(inputs, _, cotangent):
        transition, update, initial = inputs
        slope, last_slope = cotangent
        back = ops.flip(ops.swapaxes(transition, -1, -2), axis=1)
        after, first = _follow(back, ops.flip(slope, axis=1), last_slope)
        after = ops.flip(after, axis=1)
        before, _ = _follow(transition, update, initial)
        return ops.matmul(after, ops.swapaxes(before, -1, -2)), after, first

    return with_gradient(forward, backward, saved=(0, 1, 2))(transition, update, initial)


def _follow(transition, update, initial):
    count = int(update.shape[1])
    if count <= UNROLLED:
        states = [initial]
        for n in range(count):
            states.append(ops.matmul(transition[:, n], states[-1]) + update[:, n])
        return ops.stack(states[:-1], axis=1), states[-1]

    def step(state, x):
        return ops.matmul(x[0], state) + x[1], state

    last, before = scan(step, initial, (ops.moveaxis(transition, 1, 0), ops.moveaxis(update, 1, 0)))
    return ops.moveaxis(before, 0, 1), last
