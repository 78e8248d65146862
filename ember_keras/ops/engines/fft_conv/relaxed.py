"""One position after another of a long convolution in O(log^2 M), exactly.

The filter is known and the input comes one position at a time: the relaxed product of van der
Hoeven (2002, "Relax, but don't be too lazy") with one known factor, as in Flash Inference
(Oncescu et al. 2024, arXiv 2410.12982). Positions are counted from `origin`. What a position needs
of its own block of `BASE` positions is a dot product; whenever a block of ``L = BASE 2^j``
positions is complete, with j the greatest that divides the count, one FFT of size about 2 L adds
what it gives the next L positions to `pending`. Of two positions in different blocks, exactly one
such pair of blocks holds the earlier on its left and the later on its right.

Level j runs once in ``BASE 2^(j+1)`` positions and costs ``O(L log L)`` a channel, so M positions
cost ``O(M log^2 M)``. Every row counts from its own origin, and rows whose blocks end together
share one FFT. The state holds the taps, because a filter of M taps costs O(M) to evaluate anew.
"""

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.engines import cache, checks
from ember_keras.ops.engines.fft_conv import parallel
from ember_keras.ops.kernels.loops import can_switch, switch
from ember_keras.ops.kernels.shared_filters import weighted

BASE = 16
"""Positions of a block of the lowest level."""

EXTRA = ("taps", "pending", "origin")
"""What a state has beside the fixed history of inputs."""

STALE = -1
"""The origin of a row whose `pending` has to be made from its history."""


def extend(state, k):
    """Return a fixed state of `cache.make` with the taps k ``(taps, F)``, which it then keeps."""
    slots = cache.slots_of(state, "input")
    batch, width = ops.shape(state["input"])[0], int(state["input"].shape[2])
    return {
        **state,
        "taps": _to_length(checks.wide(k), slots),
        "pending": ops.zeros((batch, slots, width), checks.wide(k).dtype),
        "origin": ops.full_like(state["length"], STALE),
    }


def is_relaxed(state):
    """Whether a state holds its taps."""
    return isinstance(state, dict) and set(EXTRA) <= set(state)


def plain(state):
    """Return the fixed history alone."""
    return {key: value for key, value in state.items() if key not in EXTRA}


def after_history(new, state, k):
    """Return the state after a chunk whose outputs came from the history: `pending` is stale."""
    return {
        **new,
        "taps": _to_length(ops.cast(k, state["taps"].dtype), cache.slots_of(new, "input")),
        "pending": state["pending"],
        "origin": ops.full_like(new["length"], STALE),
    }


def can_step(state):
    """Whether one position can run here: not where compiled code cannot choose by value."""
    return can_switch(state["length"])


def step(x, state, placed):
    """Return ``(y, state)`` of one position ``(B, 1, D)``: the convolution without the skip."""
    length, slots = state["length"], cache.slots_of(state, "input")
    stale = ops.logical_or(state["origin"] < 0, length == 0)
    pending, origin = switch(
        ops.cast(ops.any(stale), "int32"),
        (lambda *_: (state["pending"], state["origin"]), _rebuilt),
        (state["pending"], state["origin"], state["input"], length, state["taps"]),
    )
    new = cache.append(plain(state), {"input": x}, placed)
    inside = (length - origin) % BASE
    back = ops.arange(min(BASE, slots), dtype="int32")[None, :]
    near = cache.gather(new["input"], ops.clip(length[:, None] - back, 0, slots - 1))
    near = cache.keep(checks.wide(near), back <= inside[:, None])
    y = ops.sum(weighted(near, state["taps"][: min(BASE, slots)]), axis=1, keepdims=True)
    y = y + cache.gather(pending, (length % slots)[:, None])
    count = new["length"] - origin
    moved = ops.logical_and(new["length"] > length, new["length"] < slots)
    count = ops.where(moved, count, ops.zeros_like(count))
    pending = switch(
        *_due(count, slots), (pending, new["input"], new["length"], count, state["taps"])
    )
    return y, {**new, "taps": state["taps"], "pending": pending, "origin": origin}


def block_sizes(slots):
    """Return the sizes of the blocks of every level of a state of `slots` positions."""
    sizes, size = [], BASE
    while size < slots:
        sizes.append(size)
        size *= 2
    return sizes


def _due(count, slots):
    """Return the index of the largest block that ends here, 0 for none, and the branches.

    Args:
        count: int32 ``(B,)``, positions since the origin; 0 for rows without a new one.
        slots: int.
    """
    sizes = block_sizes(slots)
    level = ops.zeros_like(count)
    for size in sizes:
        level = level + ops.cast(count % size == 0, "int32")
    level = ops.where(count > 0, level, ops.zeros_like(level))
    if not sizes:
        return ops.zeros((), "int32"), (lambda pending, *_: pending,)
    branches = [lambda pending, *_: pending, *(_passed_on(size, slots) for size in sizes)]
    return ops.max(level), tuple(branches)


def _passed_on(size, slots):
    """Return the function that adds what the last `size` positions give the next `size`."""

    def run(pending, history, length, count, taps):
        own = ops.zeros_like(count)  # The size of each row's own block; 0 where none ends here.
        for smaller in block_sizes(slots):
            if smaller <= size:
                ends = ops.logical_and(count % smaller == 0, count > 0)
                own = ops.where(ends, ops.full_like(own, smaller), own)
        step = ops.arange(size, dtype="int32")[None, :]
        source = length[:, None] - size + step
        held = cache.gather(history, ops.clip(source, 0, slots - 1))
        recent = step >= size - own[:, None]
        held = cache.keep(checks.wide(held), ops.logical_and(recent, source >= 0))
        flow = parallel.windowed(held, taps[: 2 * size], size, size)
        flow = cache.keep(flow, step < own[:, None])
        return _added(pending, flow, (length[:, None] + step) % slots)

    return run


def _added(pending, flow, slot):
    rows = ops.arange(ops.shape(slot)[0], dtype="int32")[:, None] + ops.zeros_like(slot)
    indices = ops.stack([ops.reshape(rows, (-1,)), ops.reshape(slot, (-1,))], axis=1)
    values = ops.reshape(ops.cast(flow, pending.dtype), (-1, int(flow.shape[2])))
    return ops.scatter_update(pending, indices, values, reduction="add")


def _rebuilt(pending, origin, history, length, taps):
    """Return what the whole history gives every position to come, and the new origin."""
    slots = int(history.shape[1])
    slot = ops.arange(slots, dtype="int32")[None, :]
    source = slot - slots + length[:, None]
    moved = cache.gather(history, ops.clip(source, 0, slots - 1))
    moved = cache.keep(checks.wide(moved), source >= 0)
    flow = parallel.windowed(moved, pad(taps, ((0, slots), (0, 0))), slots, slots)
    ahead = (slot - length[:, None]) % slots
    # The newest length, so that each row counts its blocks from here.
    return ops.cast(cache.gather(flow, ahead), pending.dtype), length + ops.zeros_like(origin)


def _to_length(k, slots):
    taps = int(k.shape[0])
    return k[:slots] if taps >= slots else pad(k, ((0, slots - taps), (0, 0)))
