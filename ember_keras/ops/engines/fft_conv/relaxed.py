"""One position after another of a long convolution in O(log^2 M), exactly.

The filter is known and the input comes one position at a time: the relaxed product of van der
Hoeven (2002, "Relax, but don't be too lazy") with one known factor, as in Flash Inference
(Oncescu et al. 2024, arXiv 2410.12982). A row's past is kept as a number is in binary. After n
positions the newest ``n % BASE`` are in `input`; before them stands, for each size
``L = BASE 2^j`` with a one at its place in n, a block of L positions, the largest the oldest. A
block is made when its last position comes, out of the smaller ones, and one FFT of size about 2 L
then makes its `flow`: what it gives the next L positions, which are all that see it as this block.
So a position gets a dot product with `input`, and the flows of the blocks there are; their sum is
kept for BASE positions at a time, in `soon`.

Size L is made once in 2 L positions and costs ``O(L log L)`` a channel: M positions cost
``O(M log^2 M)``. Nothing larger is read or written in between, neither here nor by a copy, as each
block and flow is a tensor of its own. The taps are in the state too, because a filter of M taps
costs O(M) to evaluate anew.
"""

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.engines import cache, checks
from ember_keras.ops.engines.fft_conv import parallel
from ember_keras.ops.kernels.loops import can_switch, change
from ember_keras.ops.kernels.shared_filters import weighted

BASE = 16
"""Positions of `input`, and of the smallest block."""

EXTRA = ("taps", "blocks", "flows", "soon", "stale")
"""What a state has beside the newest inputs and what a fixed state of `cache.make` has."""


def make(batch_size, width, max_length, dtype, k):
    """Return the empty past of at most `max_length` positions before the taps k ``(taps, F)``."""
    taps = _to_length(checks.wide(k), max_length)
    sizes = block_sizes(max_length)

    def empty(size, dtype):
        return ops.zeros((batch_size, size, width), dtype)

    return {
        "input": empty(min(BASE, max_length), dtype),
        "soon": empty(min(BASE, max_length), taps.dtype),
        "blocks": [empty(size, dtype) for size in sizes],
        "flows": [empty(_reach(size, max_length), taps.dtype) for size in sizes],
        "taps": taps,
        "length": ops.zeros((batch_size,), "int32"),
        "stale": ops.zeros((batch_size,), "int32"),
        "capacity": ops.convert_to_tensor(max_length, "int32"),
    }


def is_relaxed(state):
    """Whether a state holds its taps."""
    return isinstance(state, dict) and set(EXTRA) <= set(state)


def block_sizes(slots):
    """Return the sizes of the blocks of a state of `slots` positions, from the smallest."""
    sizes, size = [], BASE
    while size < slots:
        sizes.append(size)
        size *= 2
    return sizes


def sizes(slots):
    """Return the positions of each part that a state of `slots` positions has, in lists."""
    each, base = block_sizes(slots), min(BASE, slots)
    reaches = [_reach(size, slots) for size in each]
    return {"input": [base], "soon": [base], "blocks": each, "flows": reaches}


def plain(state):
    """Return the past as a fixed state of `cache.make`.

    A full one lacks the block that its last position would end: nothing can follow to see it.
    """
    length, slots = state["length"], slots_of(state)
    position = ops.arange(slots, dtype="int32")[None, :]
    where, offset = position % BASE, BASE
    for size in block_sizes(slots):
        # The block of this size, if there is one, begins at a multiple of twice the size.
        since = position - length[:, None] // (2 * size) * (2 * size)
        inside = ops.logical_and(since >= 0, since < size)
        inside = ops.logical_and(inside, _is_there(length, size)[:, None])
        where = ops.where(inside, offset + since, where)
        offset += size
    held = ops.concatenate([state["input"], *state["blocks"]], axis=1)
    history = cache.keep(cache.gather(held, where), position < length[:, None])
    return {"input": history, "length": length, "capacity": state["capacity"]}


def after_history(new, state, k):
    """Return the relaxed form of `new`, a fixed state after a chunk that followed `state`.

    The flows are made when they are first needed.
    """
    length, slots = new["length"], slots_of(state)

    def part(start, size):
        source = start[:, None] + ops.arange(size, dtype="int32")[None, :]
        held = cache.gather(new["input"], ops.clip(source, 0, slots - 1))
        return cache.keep(held, source < length[:, None])

    return {
        **state,
        "input": part(length // BASE * BASE, int(state["input"].shape[1])),
        "blocks": [part(length // (2 * s) * (2 * s), s) for s in block_sizes(slots)],
        "taps": _to_length(ops.cast(k, state["taps"].dtype), slots),
        "length": length,
        "stale": ops.ones_like(state["stale"]),
    }


def slots_of(state):
    """Return the number of positions that a state has room for."""
    return int(state["taps"].shape[0])


def can_step(state):
    """Whether one position can run here: not where compiled code cannot choose by value."""
    return can_switch(state["length"])


def step(x, state, placed):
    """Return ``(y, state)`` of one position ``(B, 1, D)``: the convolution without the skip."""
    length, slots, taps = state["length"], slots_of(state), state["taps"]
    sizes, near = block_sizes(slots), int(state["input"].shape[1])
    stale = ops.cast(ops.any(state["stale"] > 0), "int32")
    known = (state["flows"], state["soon"])
    flows, soon = change(stale, [_remade], known, state["blocks"], length, taps)
    inside = length % BASE
    past = {"input": state["input"], "length": inside, "capacity": state["capacity"]}
    count = ops.ones_like(length) if placed is None else placed.count
    cache.refuse_overflow(slots, length, length + count)
    new = cache.append(past, {"input": x}, placed)
    recent = new["input"]
    length = length + count
    back = ops.arange(near, dtype="int32")[None, :]
    held = cache.gather(recent, ops.clip(inside[:, None] - back, 0, near - 1))
    held = cache.keep(checks.wide(held), back <= inside[:, None])
    y = ops.sum(weighted(held, taps[:near]), axis=1, keepdims=True)
    early = cache.gather(soon, ops.clip(inside[:, None], 0, near - 1))
    y = y + cache.keep(early, state["length"][:, None] >= BASE)
    # A block ends only with a position that came now, and that another can follow.
    ended = ops.where(ops.logical_and(count > 0, length < slots), length, ops.zeros_like(length))
    level = ops.zeros_like(ended)
    for size in sizes:
        level = level + ops.cast(ops.logical_and(ended > 0, ended % size == 0), "int32")
    blocks, flows, soon = change(
        ops.max(level),
        [_made(size, sizes) for size in sizes],
        (state["blocks"], flows, soon),
        recent,
        ended,
        taps,
    )
    held = {"input": recent, "soon": soon, "blocks": blocks, "flows": flows}
    return y, {**state, **held, "length": length, "stale": ops.zeros_like(state["stale"])}


def _made(size, sizes):
    """Return the function that makes the blocks of `size` positions that end now.

    In rows whose block is smaller it makes that one, and nothing where none ends.
    """
    sizes = [each for each in sizes if each <= size]

    def run(past, recent, ended, taps):
        blocks, flows, soon = list(past[0]), list(past[1]), past[2]
        own = ops.zeros_like(ended)  # The size of each row's own block.
        for each in sizes:
            ends = ops.logical_and(ended > 0, ended % each == 0)
            own = ops.where(ends, ops.full_like(own, each), own)
        held = ops.concatenate([*reversed(blocks[: len(sizes) - 1]), recent], axis=1)
        newest = ops.arange(size, dtype="int32")[None, :] >= size - own[:, None]
        held = cache.keep(held, newest)
        reach = max(int(flow.shape[1]) for flow in flows[: len(sizes)])
        flow = _flow(held, taps, reach)
        for i, each in enumerate(sizes):
            mine = (own == each)[:, None, None]
            blocks[i] = ops.where(mine, held[:, size - each :], blocks[i])
            flows[i] = ops.where(mine, flow[:, : int(flows[i].shape[1])], flows[i])
        soon = ops.where((own > 0)[:, None, None], _soon(flows, ended, soon), soon)
        return blocks, flows, soon

    return run


def _remade(known, blocks, length, taps):
    """Return the flows of all blocks, and `soon`."""
    flows = [
        ops.cast(_flow(block, taps, int(flow.shape[1])), flow.dtype)
        for block, flow in zip(blocks, known[0], strict=True)
    ]
    return flows, _soon(flows, length // BASE * BASE, known[1])


def _flow(block, taps, reach):
    """Return what a block gives the next `reach` positions."""
    size = int(block.shape[1])
    return parallel.windowed(checks.wide(block), taps[: size + reach], size, reach)


def _soon(flows, length, like):
    """Return what the blocks give the positions after `length`, which is full blocks alone."""
    total = ops.zeros_like(like)
    ahead = ops.arange(int(like.shape[1]), dtype="int32")[None, :]
    for j, flow in enumerate(flows):
        size, reach = BASE << j, int(flow.shape[1])
        at = length[:, None] % size + ahead
        given = cache.gather(flow, ops.clip(at, 0, reach - 1))
        total = total + cache.keep(
            given, ops.logical_and(at < reach, _is_there(length, size)[:, None])
        )
    return total


def _is_there(length, size):
    """Whether a past of that length has a block of that size."""
    return length // size % 2 == 1


def _reach(size, slots):
    """Return how many of the positions after a block a state has room for."""
    return min(size, slots - size)


def _to_length(k, slots):
    taps = int(k.shape[0])
    return k[:slots] if taps >= slots else pad(k, ((0, slots - taps), (0, 0)))
