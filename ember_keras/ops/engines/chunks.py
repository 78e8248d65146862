"""What the engines with a matrix for a state share: cutting time into chunks.

Inside a chunk a matrix-valued recurrence is a product of matrices, and between chunks it is a
short recurrence over their states. Tensors of a chunked sequence are ``(B, N, H, C, ...)``: ``N``
chunks of ``C`` positions.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from ember_keras.backend import pad

CHUNK = 64
"""Positions in a chunk of a sequence at least as long."""

BLOCK = 16
"""Chunks whose states `carry` passes on one by one; more are passed on in blocks of as many."""


class Sight(NamedTuple):
    """Who sees whom in chunks; every tensor is float, 1 where it is so and 0 where not.

    Attributes:
        pairs: ``(B or 1, N or 1, 1, C, C)``, the query of the row sees the key of the column.
        reads: ``(B, N, 1, C, 1)``, the position belongs to the run that the state before its chunk
            is of. None where all do.
        writes: ``(B, N, 1, C, 1)``, the position belongs to the run that goes on after its chunk.
        keeps: ``(B, N, 1, 1, 1)``, the run before the chunk goes on after it.
    """

    pairs: Any
    reads: Any = None
    writes: Any = None
    keeps: Any = None


def size_for(time):
    """Return the length ``C`` of the chunks of a sequence: a power of two."""
    size = 1
    while size < min(time, CHUNK):
        size *= 2
    return size


def cut(x, size):
    """Return `x` ``(B, T, H, ...)`` as ``(B, N, H, C, ...)``, with zeros after the end."""
    x = pad_to(x, size)
    shape = [int(n) for n in x.shape[1:]]
    x = ops.reshape(x, (-1, shape[0] // size, size, *shape[1:]))
    return ops.swapaxes(x, 2, 3)


def join(x, time):
    """Undo `cut`: ``(B, N, H, C, ...)`` to ``(B, time, H, ...)``."""
    x = ops.swapaxes(x, 2, 3)
    shape = [int(n) for n in x.shape[1:]]
    return ops.reshape(x, (-1, shape[0] * shape[1], *shape[2:]))[:, :time]


def pad_to(x, size):
    """Return `x` ``(B, T, ...)`` with zeros after the end, to a multiple of `size`."""
    extra = -int(x.shape[1]) % size
    if not extra:
        return x
    return pad(x, ((0, 0), (0, extra), *((0, 0) for _ in x.shape[2:])))


def cut_runs(run, size):
    """Return the runs ``(B, T)`` of a `Timeline` in chunks ``(B, N, C)``; the last one goes on."""
    time = int(run.shape[1])
    extra = -time % size
    if extra:
        run = ops.concatenate([run, ops.repeat(run[:, -1:], extra, axis=1)], axis=1)
    return ops.reshape(run, (-1, (time + extra) // size, size))


def sight(run, size, dtype, strict=False):
    """Return the `Sight` of chunks of `size` positions.

    Args:
        run: int32 ``(B, N, C)`` from `cut_runs`, or None for one run.
        size: int, ``C``.
        dtype: str, of the result.
        strict: bool. A position does not see itself.
    """
    at = ops.arange(size, dtype="int32")
    earlier = (at[:, None] > at[None, :]) if strict else (at[:, None] >= at[None, :])
    if run is None:
        return Sight(ops.cast(earlier, dtype)[None, None, None])
    before = pad(run[:, :-1, -1], ((0, 0), (1, 0)))[:, :, None]
    last = run[:, :, -1:]
    same = ops.logical_and(run[:, :, :, None] == run[:, :, None, :], earlier)
    return Sight(
        ops.cast(same, dtype)[:, :, None],
        ops.cast(run == before, dtype)[:, :, None, :, None],
        ops.cast(run == last, dtype)[:, :, None, :, None],
        ops.cast(last == before, dtype)[:, :, None, :, None],
    )


def only(x, flags):
    """Return `x` times `flags`, which may be None for all ones."""
    return x if flags is None else x * flags


def carry(decay, update, initial, reverse=False):
    """Run ``S_{n+1} = decay_n S_n + update_n`` over the axis 1.

    Args:
        decay: tensor ``(B, N, ...)``, which broadcasts over `update`.
        update: tensor ``(B, N, ...)``.
        initial: tensor ``(B, ...)``, ``S_0``.
        reverse: bool. From the last to the first: ``S_n = decay_n S_{n+1} + update_n`` from
            ``S_N = initial``.

    Returns:
        ``(before, last)``: every ``S_n`` that a step starts from, ``(B, N, ...)``, and the last.
    """
    count = int(update.shape[1])
    if count <= BLOCK:
        order = range(count - 1, -1, -1) if reverse else range(count)
        states, last = {}, initial
        for n in order:
            states[n] = last
            last = decay[:, n] * last + update[:, n]
        return ops.stack([states[n] for n in range(count)], axis=1), last
    blocks = -(-count // BLOCK)
    extra = blocks * BLOCK - count

    def fold(x, value):
        widths = ((0, 0), (0, extra), *((0, 0) for _ in x.shape[2:]))
        x = pad(x, widths, constant_values=value) if extra else x
        return ops.reshape(x, (-1, blocks, BLOCK, *(int(n) for n in x.shape[2:])))

    decay, update = fold(decay, 1.0), fold(update, 0.0)
    # Inside each block from nothing, all blocks at once; what came before is added after.
    inside, passed = {}, {}
    added, kept = ops.zeros_like(update[:, :, 0]), ops.ones_like(decay[:, :, 0])
    for n in range(BLOCK - 1, -1, -1) if reverse else range(BLOCK):
        inside[n], passed[n] = added, kept
        added = decay[:, :, n] * added + update[:, :, n]
        kept = decay[:, :, n] * kept
    before, last = carry(kept, added, initial, reverse)
    # One by one: tensorflow broadcasts no more axes than one block has.
    states = ops.stack([inside[n] + passed[n] * before for n in range(BLOCK)], axis=2)
    states = ops.reshape(states, (-1, blocks * BLOCK, *(int(n) for n in update.shape[3:])))
    return states[:, :count], last


def carry_back(decay, toward, last):
    """Run the gradient of `carry`, ``Z_n = decay_n Z_{n+1} + toward_n``, from ``Z_N = last``.

    Returns:
        ``(after, first)``: every ``Z_{n+1}`` for n < N, ``(B, N, ...)``, and ``Z_0``.
    """
    return carry(decay, toward, last, reverse=True)


def running_sum(x, axis, reverse=False, exclusive=False):
    """Return the cumulative sums of `x` along an axis of a chunk's length, as a matrix product.

    Args:
        x: tensor.
        axis: int, -1 or -2.
        reverse: bool. Sum from each position to the end.
        exclusive: bool. Leave the position itself out.
    """
    size = int(x.shape[axis])
    at = ops.arange(size, dtype="int32")
    row, column = at[:, None], at[None, :]
    if reverse:
        row, column = column, row
    dtype = keras.backend.standardize_dtype(x.dtype)
    lower = ops.cast(row > column if exclusive else row >= column, dtype)
    if axis == -2:
        return ops.matmul(lower, x)
    return ops.matmul(x, ops.transpose(lower))
