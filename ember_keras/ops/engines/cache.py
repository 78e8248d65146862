"""The past of an engine that looks back at every position: compact buffers, one length a row.

A cache state is a dict of buffers ``(B, M, ...)`` and ``length`` ``(B,)`` int32: the past of row
``b`` sits in slots ``0 .. length[b] - 1``, without holes, and the other slots are zero.
Three kinds exist, told apart by structure:

- growing: appending ``T`` positions makes ``M + T`` slots;
- fixed: made with ``max_length``, it has the extra entry ``capacity`` ``()`` int32, and ``M``
  never changes, so that a compiled step is compiled once;
- window: made with ``window``, it has the extra entry ``window`` ``()`` int32, and holds the last
  ``M = window - 1`` positions with the newest last, however many have passed; ``length`` counts
  them all. Nothing in it can overflow.

Only real positions (mask True) are stored. A fixed buffer that overflows raises `ValueError`
where values can be read; in traced code the outputs of positions beyond the capacity are NaN.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from ember_keras import backend
from ember_keras.backend import pad


class Layout(NamedTuple):
    """Where the real positions of a masked chunk are; all tensors have shape ``(B, T)``.

    Attributes:
        order: int32, the position of the j-th real token, at slot j.
        inverse: int32, the slot of each real position.
        filled: bool, True for slots that hold a real token.
        mask: bool, True for real positions.
        count: int32 ``(B,)``, how many positions are real.
    """

    order: Any
    inverse: Any
    filled: Any
    mask: Any
    count: Any


def layout(mask):
    """Return the `Layout` of a ``(B, T)`` mask."""
    mask = ops.cast(mask, "bool")
    length = mask.shape[1]
    positions = ops.arange(length, dtype="int32")[None, :]
    real = ops.cast(mask, "int32")
    count = ops.cast(ops.sum(real, axis=1), "int32")
    order = ops.cast(ops.argsort(ops.where(mask, positions, positions + length)), "int32")
    inverse = ops.maximum(ops.cast(ops.cumsum(real, axis=1), "int32") - 1, 0)
    return Layout(order, inverse, positions < count[:, None], mask, count)


def single(mask):
    """Return the `Layout` of a ``(B, 1)`` mask."""
    mask = ops.cast(mask, "bool")
    count = ops.cast(mask[:, 0], "int32")
    zeros = ops.zeros_like(mask, dtype="int32")
    return Layout(zeros, zeros, mask, mask, count)


def spread(flags, rank):
    """Return ``(B, T)`` flags with ones appended to the shape up to `rank`."""
    return ops.reshape(flags, (-1, flags.shape[1]) + (1,) * (rank - 2))


def gather(x, slots):
    """Return ``x[b, slots[b, j], ...]`` for x ``(B, M, ...)`` and slots ``(B, J)``."""
    return ops.take_along_axis(x, spread(slots, len(x.shape)), axis=1)


def keep(x, flags):
    """Return `x` ``(B, T, ...)`` with zeros where ``(B, T)`` flags are False."""
    return ops.where(spread(flags, len(x.shape)), x, ops.zeros_like(x))


def compact(x, placed):
    """Return `x` ``(B, T, ...)`` with the real positions first and zeros after them."""
    return keep(gather(x, placed.order), placed.filled)


def uncompact(x, placed):
    """Return compacted `x` at its original positions, with zeros at padded ones."""
    return keep(gather(x, placed.inverse), placed.mask)


def runs(segment_ids, placed=None):
    """Return the number, from 0, of the run of equal ids that each position belongs to.

    A segment is a run of equal ids among the real positions of a row; an id that comes back
    later starts a new segment.

    Args:
        segment_ids: int tensor ``(B, T)``.
        placed: `Layout` of the mask, or None. With it, padded positions are skipped, and the
            result is compacted: the slots after the last real token belong to the last run.
    """
    if placed is not None:
        last = ops.maximum(placed.count - 1, 0)[:, None]
        slots = ops.minimum(ops.arange(segment_ids.shape[1], dtype="int32")[None, :], last)
        segment_ids = gather(gather(segment_ids, placed.order), slots)
    if segment_ids.shape[1] == 1:
        return ops.zeros_like(segment_ids)
    changed = ops.cast(segment_ids[:, 1:] != segment_ids[:, :-1], "int32")
    return pad(ops.cast(ops.cumsum(changed, axis=1), "int32"), ((0, 0), (1, 0)))


def make(batch_size, tails, max_length=None, dtype=None, window=None):
    """Return an empty cache state.

    Args:
        batch_size: int, rows.
        tails: dict from buffer name to the shape of one position, such as ``{"key": (G, K)}``.
        max_length: int or None. Slots of a fixed cache; None makes a growing one.
        dtype: str or None. Dtype of the buffers; None is `keras.config.floatx()`.
        window: int or None. Positions that a window sees, the newest included. Not together with
            `max_length`.
    """
    if max_length is not None:
        check_capacity(max_length)
    if window is not None:
        _check_window(window, max_length)
    dtype = dtype or keras.config.floatx()
    slots = max_length or (window or 1) - 1
    state = {name: ops.zeros((batch_size, slots, *tail), dtype) for name, tail in tails.items()}
    state["length"] = ops.zeros((batch_size,), "int32")
    if max_length is not None:
        state["capacity"] = ops.convert_to_tensor(max_length, "int32")
    if window is not None:
        state["window"] = ops.convert_to_tensor(window, "int32")
    return state


def check_capacity(max_length):
    """Raise `ValueError` unless a state can have that many slots."""
    if max_length < 1:
        raise ValueError(
            f"Received max_length={max_length}; expected an integer >= 1, or None for a state "
            "that grows."
        )
    if max_length >= 2**31:
        raise ValueError(
            f"Received max_length={max_length}; expected less than 2**31, because a state counts "
            "its positions in int32. Give fewer, or None for a state that grows."
        )


def check(state, names, maker):
    """Raise `ValueError` unless `state` is a cache state with the buffers `names`."""
    expected = sorted([*names, "length"])
    known = isinstance(state, dict)
    found = sorted(set(state) - {"capacity", "window"}) if known else type(state).__name__
    if found != expected:
        raise ValueError(
            f"Received an initial_state with {found}; expected a dict with {expected} "
            f"(and capacity where it was made with max_length). Make it with {maker}."
        )


def slots_of(state, name):
    """Return the number of slots ``M`` of the buffer `name`."""
    return int(state[name].shape[1])


def append(state, chunk, placed=None, kept=None, reset=None):
    """Return `state` with the real positions of a chunk appended to each row.

    Args:
        state: cache state with buffers ``(B, M, ...)``.
        chunk: dict from buffer name to the compacted chunk ``(B, T, ...)``.
        placed: `Layout` of the chunk's mask, or None where every position is real.
        kept: ``(first, count)`` or None: only the compacted slots ``first .. first + count - 1``
            are stored, both int32 ``(B,)``. It drops finished segments.
        reset: bool ``(B,)`` or None: rows whose past is dropped first.
    """
    name = next(iter(chunk))
    length, time = state["length"], int(chunk[name].shape[1])
    slots = slots_of(state, name)
    fixed = "capacity" in state
    if reset is not None:
        length = ops.where(reset, ops.zeros_like(length), length)
    if kept is not None:
        first, count = kept
    else:
        first = ops.zeros_like(length)
        count = ops.full_like(length, time) if placed is None else placed.count
    total = length + count
    if fixed:
        refuse_overflow(slots, length, total, time if placed is None and kept is None else 0)
    if slots == 0 and kept is None:
        new = {k: ops.cast(chunk[k], state[k].dtype) for k in chunk}
    elif time == 1 and fixed:
        target = ops.where(count > 0, length, ops.full_like(length, slots))
        new = {k: _write(state[k], chunk[k], target) for k in chunk}
        if reset is not None:
            new = {k: _clear(new[k], total) for k in chunk}
    else:
        new = {k: _merge(state[k], chunk[k], length, first, total, fixed) for k in chunk}
    result = {**new, "length": total}
    if fixed:
        result["capacity"] = state["capacity"]
    return result


def roll(state, chunk, placed=None, kept=None, reset=None):
    """Return a window `state` with the real positions of a chunk rolled in.

    The arguments are those of `append`. The cost is that of the window and the chunk.
    """
    name = next(iter(chunk))
    length, time, slots = state["length"], int(chunk[name].shape[1]), slots_of(state, name)
    if reset is not None:
        length = ops.where(reset, ops.zeros_like(length), length)
    if kept is not None:
        count = kept[1]
    else:
        count = ops.full_like(length, time) if placed is None else placed.count
    total = length + count
    slot = ops.arange(slots, dtype="int32")[None, :]
    new = {}
    for name, value in chunk.items():
        if slots == 0:
            new[name] = state[name]
            continue
        both = ops.concatenate([state[name], ops.cast(value, state[name].dtype)], axis=1)
        last = both[:, time:] if placed is None else gather(both, placed.count[:, None] + slot)
        new[name] = keep(last, slot >= slots - total[:, None])
    return {**new, "length": total, "window": state["window"]}


def held(state, name):
    """Return ``(positions, there)`` ``(B, M)`` of the slots of a window state.

    A position counts the real tokens before it; it is negative where a slot is still empty.
    """
    slots = slots_of(state, name)
    step = ops.arange(slots, dtype="int32")[None, :] - slots
    positions = state["length"][:, None] + step
    return positions, positions >= 0


def beyond(state, slots, positions):
    """Return bool ``(B, T)``: positions past the slots of a fixed state; None if it grows."""
    return positions >= slots if "capacity" in state else None


def refuse_overflow(slots, length, total, time=0):
    """Raise `ValueError` where ``total > slots``, or in traced code where ``time > slots``."""
    if time > slots:
        _overflow(slots, "at least 0", time)
    if backend.is_tracing(total):
        return
    totals = backend.to_numpy(total)
    if totals.max(initial=0) > slots:
        row = int(totals.argmax())
        held = int(backend.to_numpy(length)[row])
        _overflow(slots, held, int(totals[row]) - held)


def last_run(run, placed=None):
    """Return what a state keeps after a chunk of several segments: its last one.

    Args:
        run: int32 ``(B, T)`` from `runs`, compacted.
        placed: `Layout` of the mask, or None.

    Returns:
        ``(last, kept, reset)``: the number of the last run ``(B,)``, and the arguments of
        `append`.
    """
    last = run[:, -1]
    inside = run == last[:, None]
    if placed is not None:
        inside = ops.logical_and(inside, placed.filled)
    count = ops.cast(ops.sum(ops.cast(inside, "int32"), axis=1), "int32")
    total = ops.full_like(last, run.shape[1]) if placed is None else placed.count
    return last, (total - count, count), last > 0


def _check_window(window, max_length):
    if max_length is not None:
        raise ValueError(
            f"Received window={window} and max_length={max_length}; expected one of the two. A "
            "window never overflows: drop max_length."
        )
    if window < 1:
        raise ValueError(
            f"Received window={window}; expected an integer >= 1. A window of 1 sees only the "
            "position itself."
        )


def _write(buffer, value, target):
    """Return the buffer with the value in the slot `target` of each row, where it has that slot."""
    slot = ops.minimum(target, int(buffer.shape[1]) - 1)[:, None]
    value = ops.where(
        spread(target[:, None] == slot, len(buffer.shape)),
        ops.cast(value, buffer.dtype),
        gather(buffer, slot),
    )
    rows = ops.arange(ops.shape(buffer)[0], dtype="int32")[:, None]
    return ops.scatter_update(buffer, ops.concatenate([rows, slot], axis=1), value[:, 0])


def _clear(buffer, total):
    filled = ops.arange(buffer.shape[1], dtype="int32")[None, :] < total[:, None]
    return keep(buffer, filled)


def _merge(buffer, value, length, first, total, fixed):
    slots, time = int(buffer.shape[1]), int(value.shape[1])
    both = ops.concatenate([buffer, ops.cast(value, buffer.dtype)], axis=1)
    slot = ops.arange(slots if fixed else slots + time, dtype="int32")[None, :]
    new = slots + first[:, None] + slot - length[:, None]
    source = ops.where(slot < length[:, None], slot, ops.minimum(new, slots + time - 1))
    return keep(gather(both, source), slot < total[:, None])


def _overflow(slots, held, more):
    raise ValueError(
        f"The state is full: it was made with max_length={slots}, holds {held} positions, and got "
        f"{more} more; expected at most {slots} in all. Make the state with a larger max_length."
    )
