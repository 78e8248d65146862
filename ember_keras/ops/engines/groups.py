"""Groups of neighbouring positions, counted in each packed sequence from its first real one."""

from typing import Any, NamedTuple

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.engines import cache
from ember_keras.ops.engines.timeline import running_maximum, timeline


class Groups(NamedTuple):
    """The full groups of P real positions of a chunk that follows up to P - 1 that wait for more.

    A slot is a place in what waits and the chunk, one after the other, `(B, P - 1 + T)`.

    Attributes:
        members: int32 `(B, G, P)`, the slots of each full group's positions.
        there: bool `(B, G)`, False past the last full group.
        run: int32 `(B, G)`, the number from 0 of the sequence that each group belongs to.
        newest: int32 `(B, T)`, how many groups are full by each position.
        newest_run: int32 `(B, T)`, the number of the sequence of each position.
        waiting: int32 `(B, P - 1)`, the slots of those that wait after the chunk, at the end.
        count: int32 `(B,)`, how many of these there are.
        full: int32 `(B,)`, how many groups are full by the end.
        last_run: int32 `(B,)`, the number of the last sequence.
    """

    members: Any
    there: Any
    run: Any
    newest: Any
    newest_run: Any
    waiting: Any
    count: Any
    full: Any
    last_run: Any


def groups(x, size, count, mask, segment_ids):
    """Return the `Groups` of a chunk.

    Args:
        x: tensor `(B, T, ...)`, the chunk.
        size: int >= 2, P.
        count: int32 `(B,)`, how many of the P - 1 slots before the chunk hold a position.
        mask: bool tensor `(B, T)`, True at real positions, or None.
        segment_ids: int tensor `(B, T)`, or None for one sequence. What waits is of the first.
    """
    batch, time, held = ops.shape(x)[0], x.shape[1], size - 1
    run = timeline(x, mask, segment_ids).run
    run = ops.zeros((batch, time), "int32") if run is None else run
    mask = ops.ones((batch, time), "bool") if mask is None else mask
    waits = ops.arange(held, dtype="int32")[None, :] >= held - count[:, None]
    placed = cache.layout(ops.concatenate([waits, mask], axis=1))
    of_slot = pad(run, ((0, 0), (held, 0)))

    # From here on real positions stand side by side.
    run_at = cache.gather(of_slot, placed.order)
    at = ops.arange(held + time, dtype="int32")[None, :]
    begins = pad(run_at[:, 1:] != run_at[:, :-1], ((0, 0), (1, 0)), constant_values=False)
    since = at - running_maximum(ops.where(begins, at, 0))
    fills = ops.logical_and(placed.filled, since % size == held)
    full = ops.cast(ops.cumsum(ops.cast(fills, "int32"), axis=1), "int32")

    ends = cache.layout(fills)
    end = ends.order[:, : (held + time) // size]
    first = ops.maximum(end - held, 0)[:, :, None]
    members = first + ops.arange(size, dtype="int32")[None, None, :]
    flat = ops.reshape(members, (-1, members.shape[1] * size))
    slots = ops.reshape(cache.gather(placed.order, flat), (-1, members.shape[1], size))

    last = ops.maximum(placed.count - 1, 0)[:, None]
    after = (cache.gather(since, last)[:, 0] + 1) % size
    waiting = ops.maximum(last - held + 1 + ops.arange(held, dtype="int32")[None, :], 0)
    return Groups(
        members=slots,
        there=ends.filled[:, : (held + time) // size],
        run=cache.gather(run_at, end),
        newest=cache.gather(full, placed.inverse[:, held:]),
        newest_run=run,
        waiting=cache.gather(placed.order, waiting),
        count=ops.where(placed.count > 0, after, 0),
        full=ends.count,
        last_run=cache.gather(run_at, last)[:, 0],
    )
