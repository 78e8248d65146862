"""A mixture of gated experts in `keras.ops`: for gradients of the kernel's gradients."""

from keras import ops

from ember_keras.ops.kernels import row_blocks


def run(x, chosen, weights, gate_up, down):
    """Return the weighted sum ``(N, D)`` of what each token's experts make of it.

    ``y_n = sum_i weights_ni f_e(x_n)``, e the i-th expert chosen, ``f_e(x) = (silu(x A_e) * x B_e)
    C_e``.

    Args:
        x: tensor ``(N, D)``.
        chosen: int32 tensor ``(N, K)``, numbers of experts; E for none.
        weights: tensor ``(N, K)``.
        gate_up: tensor ``(E, D, 2 F)``, A and B side by side.
        down: tensor ``(E, F, D)``, C.
    """
    tokens, slots = ops.shape(chosen)[0], int(chosen.shape[1])
    flat = ops.reshape(chosen, (-1,))
    order = ops.argsort(flat)
    numbers = ops.arange(int(down.shape[0]), dtype="int32")
    counts = ops.sum(ops.cast(flat[:, None] == numbers, "int32"), axis=0)
    ends = ops.cast(ops.cumsum(counts), "int32")
    offsets = ops.concatenate([ops.zeros_like(ends[:1]), ends])
    both = row_blocks.run(ops.take(x, order // slots, axis=0), gate_up, offsets)
    gate, up = ops.split(both, 2, axis=-1)
    rows = row_blocks.run(ops.silu(gate) * up, down, offsets)
    rows = rows * ops.take(ops.reshape(weights, (-1,)), order)[:, None]
    return ops.segment_sum(rows, order // slots, num_segments=tokens)
