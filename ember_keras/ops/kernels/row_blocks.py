"""The grouped matrix product as batched products of equal blocks, in `keras.ops`.

Each group is cut into blocks of R rows, the last one padded, so that all shapes are fixed: at most
``M / R + E`` blocks, each with a copy of its group's matrix. With R about half of a mean group the
padding is at most as much again as the rows, and the copies are three times the matrices, whatever
M is.
"""

from typing import Any, NamedTuple

from keras import ops

from ember_keras.ops.kernels.gradient import with_gradient

MAX_BLOCK = 256
UNKNOWN_BLOCK = 32
"""R where the number of rows is not known when a function is traced."""


class _Plan(NamedTuple):
    """Where the blocks lie.

    Attributes:
        size: int, R.
        group: int32 tensor ``(N,)``, the group of each block.
        rows: int32 tensor ``(N, R)``, the rows of each block.
        inside: bool tensor ``(N, R)``, False at padding.
        place: int32 tensor ``(M,)``, where each row lies among the blocks' rows.
        grouped: bool tensor ``(M,)``, False for a row of no group.
    """

    size: int
    group: Any
    rows: Any
    inside: Any
    place: Any
    grouped: Any


def run(x, w, offsets):
    """Return ``(M, F)``; see `ember_keras.ops.grouped_matmul`."""
    groups = int(w.shape[0])

    def forward(x, w, offsets):
        plan = _plan(offsets, groups, x)
        y = ops.matmul(_cut(x, plan), ops.take(w, plan.group, axis=0))
        return _join(y, plan), ()

    def backward(inputs, _, g):
        return gradients(*inputs, g)

    return with_gradient(forward, backward, saved=(0, 1, 2))(x, w, offsets)


def gradients(x, w, offsets, g):
    """Return the gradients of x and w, and None, for a cotangent ``(M, F)``."""
    groups = int(w.shape[0])
    plan = _plan(offsets, groups, x)
    g = _cut(g, plan)
    dx = ops.matmul(g, ops.swapaxes(ops.take(w, plan.group, axis=0), 1, 2))
    dw = ops.matmul(ops.swapaxes(_cut(x, plan), 1, 2), g)
    dw = ops.segment_sum(dw, plan.group, num_segments=groups, sorted=False)
    return _join(dx, plan), ops.cast(dw, w.dtype), None


def block_size(rows, groups):
    """Return R, a power of two, for a number of rows, or None, in some groups."""
    if not isinstance(rows, int):
        return UNKNOWN_BLOCK
    size = 1
    while size < MAX_BLOCK and size * 4 * groups <= rows:
        size *= 2
    return size


def _plan(offsets, groups, x):
    rows = ops.shape(x)[0]
    size = block_size(x.shape[0], groups)
    least = min(groups, rows) if isinstance(rows, int) else groups
    count = (rows + (size - 1) * least) // size
    starts, ends = offsets[:-1], offsets[1:]
    blocks = (ends - starts + (size - 1)) // size
    last = ops.cast(ops.cumsum(blocks), "int32")
    first = last - blocks
    block = ops.arange(count, dtype="int32")
    group = _group_of(block, last, groups)
    row = ops.take(starts, group) + (block - ops.take(first, group)) * size
    row = row[:, None] + ops.arange(size, dtype="int32")[None, :]
    inside = ops.logical_and(row < ops.take(ends, group)[:, None], (block < last[-1])[:, None])
    at = ops.arange(rows, dtype="int32")
    own = _group_of(at, ends, groups)
    local = at - ops.take(starts, own)
    place = (ops.take(first, own) + local // size) * size + local % size
    grouped = ops.logical_and(at >= offsets[0], at < offsets[-1])
    zero = ops.zeros_like(place)
    return _Plan(
        size,
        group,
        ops.where(inside, row, ops.zeros_like(row)),
        inside,
        ops.where(grouped, place, zero),
        grouped,
    )


def _group_of(index, ends, groups):
    """The group that each index lies in, by where groups end; the last one for those beyond."""
    passed = ops.sum(ops.cast(index[:, None] >= ends[None, :], "int32"), axis=1)
    return ops.cast(ops.minimum(passed, groups - 1), "int32")


def _cut(x, plan):
    """Return the blocks ``(N, R, D)`` of ``(M, D)``, 0 at padding."""
    blocks = ops.take(x, plan.rows, axis=0)
    return ops.where(plan.inside[..., None], blocks, ops.zeros_like(blocks))


def _join(blocks, plan):
    """Return the rows ``(M, F)`` of the blocks ``(N, R, F)``, 0 outside of groups."""
    y = ops.take(ops.reshape(blocks, (-1, int(blocks.shape[-1]))), plan.place, axis=0)
    return ops.where(plan.grouped[:, None], y, ops.zeros_like(y))
