"""The public functions of the long convolution engine."""

import keras
from keras import ops

from ember_keras.backend import pad
from ember_keras.ops import counting
from ember_keras.ops.engines import cache, checks
from ember_keras.ops.engines.fft_conv import parallel, relaxed, states
from ember_keras.ops.kernels.shared_filters import repeated, weighted
from ember_keras.ops.tensor.nests import wrap


def fft_conv_state(batch_size, width, max_length=None, taps=None, dtype=None, k=None):
    """Return an empty past for `fft_conv`.

    Args:
        batch_size: int, rows ``B``.
        width: int, channels ``D``.
        max_length: int or None. Positions the history can hold; None makes one that grows.
            Not together with `taps`.
        taps: int or None. Of a finite filter, whose past is the window of its last
            ``taps - 1`` inputs: constant in size, and it never overflows.
        dtype: str or None, of the stored inputs; None is `keras.config.floatx()`.
        k: tensor ``(taps, F)`` or None. The filters, of which D / F neighbouring channels share
            one, and which a state of `max_length` positions then holds: a step costs
            ``O(D log^2 M)`` amortised in place of ``O(D M)``, exactly.

    Returns:
        dict. Without `taps`: ``input`` ``(B, M, D)``, ``length`` ``(B,)`` int32, and ``capacity``
        ``()`` int32 where `max_length` is given; ``M`` is `max_length`, or 0.
        With `k` also ``taps`` ``(M, F)``; ``input`` ``(B, 16, D)`` then holds the newest alone,
        the list ``blocks`` ``(B, 16 2^j, D)`` the older, the list ``flows`` what each of them gives
        the positions after it, ``soon`` ``(B, 16, D)`` their sum for the present ones, and
        ``stale`` ``(B,)`` int32 says that they have yet to be made.
        With `taps`: ``window`` ``(B, taps - 1, D)``, the newest input last.

    Example:

    >>> tuple(fft_conv_state(batch_size=2, width=4, max_length=16)["input"].shape)
    (2, 16, 4)
    >>> tuple(fft_conv_state(batch_size=2, width=4, taps=3)["window"].shape)
    (2, 2, 4)
    """
    if k is not None and max_length is None:
        raise ValueError(
            "Received k without max_length; expected both, because a state that holds its filter "
            "holds as many taps as positions. Give max_length, or drop k."
        )
    if taps is None and k is not None:
        cache.check_capacity(max_length)
        k = checks.floating("k", k, "(taps, F)")
        _check_filters(k, width, "the state")
        return relaxed.make(batch_size, width, max_length, dtype or keras.config.floatx(), k)
    if taps is None:
        return cache.make(batch_size, {"input": (width,)}, max_length, dtype)
    if max_length is not None:
        raise ValueError(
            f"Received taps={taps} and max_length={max_length}; expected one of the two. A filter "
            "of finite length needs a window of its taps and no max_length: drop max_length."
        )
    if taps < 1:
        raise ValueError(
            f"Received taps={taps}; expected an integer >= 1. Give the filter's length."
        )
    return {"window": ops.zeros((batch_size, taps - 1, width), dtype or keras.config.floatx())}


def taps_needed(length, state=None, taps=None):
    """Return how many taps of an unbounded filter a chunk of `length` positions can reach.

    A filter that is a function of the position is evaluated at this many points; more make no
    difference.

    Args:
        length: int, positions ``T`` in the chunk.
        state: dict from `fft_conv_state`, or None for a fresh sequence.
        taps: int or None, the filter's own length where it has one.

    Returns:
        int, ``min(taps, M + T)`` with ``M`` the slots of the state (at most M in a fixed one,
        whose positions all have slots).

    Example:

    >>> taps_needed(100), taps_needed(100, taps=3)
    (100, 3)
    """
    reach = length
    if state is not None:
        if relaxed.is_relaxed(state):
            slots = relaxed.slots_of(state)
        else:
            slots = cache.slots_of(state, "window" if "window" in state else "input")
        reach = slots if "capacity" in state else slots + length
    return reach if taps is None else min(taps, reach)


@wrap
@counting.counted(counting.fft_conv)
def fft_conv(
    u,
    k,
    d=None,
    *,
    gate_in=None,
    gate_out=None,
    causal=True,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """Convolution along time with filters of any length, one a channel or one for several.

    ``y_t = sum_{s >= 0} k_s u_{t-s} + d u_t`` (Hyena, arXiv 2302.10866; S4D, arXiv 2206.11893).
    With gates u stands for ``gate_in u``, and y is multiplied by `gate_out`, as in Hyena.
    Not causal: ``y_t = sum_s k_s u_{t - (s - c)} + d u_t`` with centre ``c = (taps - 1) // 2``.
    Filters of up to 16 taps are applied by shifts, longer ones by FFT in ``O(T log T)``.
    The arithmetic is float32 for float16, bfloat16 and float32 inputs.

    Args:
        u: tensor ``(B, T, D)``.
        k: tensor ``(taps, F)``, ``taps >= 1``: shorter than T, equal, or longer. F is D, one
            filter a channel, or divides it: D / F neighbouring channels then share a filter, which
            is transformed once. None after a state that holds its filters, which then gives them.
        d: tensor ``(D,)``, or ``(F,)`` for skips that are shared like the filters, or None.
        gate_in: tensor ``(B, T, D)`` or None. A state holds what it lets through.
        gate_out: tensor ``(B, T, D)`` or None. A kernel may apply both where it reads and writes.
        causal: bool.
        initial_state: dict from `fft_conv_state` or an earlier call, or None for an empty past.
            After a past in ``M`` slots only the first `taps_needed` taps count. One position
            after a past is a dot product of the past with the filter: ``O(M D)``, no FFT.
            After a state made with the filter, and without `k`, it is relaxed: blocks of 16, 32,
            64 .. positions are passed on by FFT as they fill, ``O(D log^2 M)`` amortised; only in
            code compiled by mlx, which cannot choose by value, it stays the dot product. A `k`
            that is given replaces the state's, from the first position of the state on, and has as
            many filters.
        return_state: bool. Also return the past after this chunk.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there:
            they output 0, and real positions and the state are as if they had been cut out.
        segment_ids: int tensor ``(B, T)``. Nothing flows between runs of different ids. The past
            belongs to the first run of the chunk, and the state after it holds the last.

    Returns:
        ``y`` ``(B, T, D)`` in u's dtype, or ``(y, state)``. In traced code, positions past the
        capacity of a state are NaN.

    Example:

    >>> import numpy as np
    >>> u = np.random.normal(size=(2, 100, 4)).astype("float32")
    >>> k = np.random.normal(size=(100, 4)).astype("float32")
    >>> y, state = fft_conv(u, k, return_state=True)
    >>> tuple(y.shape), tuple(state["input"].shape)
    ((2, 100, 4), (2, 100, 4))
    """
    u = checks.floating("u", u, "(B, T, D)")
    held = relaxed.is_relaxed(initial_state)
    given = k is not None
    if not given and not held:
        raise ValueError(
            "Received k=None; expected a tensor (taps, F), or an initial_state that holds its "
            "filter. Pass k, or make the state with fft_conv_state(..., k=k)."
        )
    k = checks.floating("k", k if given else initial_state["taps"], "(taps, F)")
    time, width = checks.static("u", u, 1), checks.static("u", u, 2)
    checks.static("k", k, 0)
    _check_filters(k, width, "u")
    if held:
        filters = initial_state["taps"].shape[1]
        checks.same("the number F of filters of k", k.shape[1], filters, "the state")
    if d is not None:
        d = checks.floating("d", d, "(D,)")
        if d.shape[0] == k.shape[1]:
            d = repeated(d, width)
        checks.same("the width D of d", d.shape[0], width, "u")
    stateful = initial_state is not None or return_state
    if stateful and not causal:
        raise ValueError(
            "Received initial_state or return_state=True with causal=False; expected causal=True, "
            "because a bidirectional pass needs the whole sequence at once. Drop the state."
        )
    states.check(initial_state, u.shape[0], width)
    mask = checks.rows("mask", mask, u.shape[0], time, "bool")
    segment_ids = checks.rows("segment_ids", segment_ids, u.shape[0], time, "int32")
    placed = None
    if mask is not None:
        placed = cache.layout(mask) if time > 1 else cache.single(mask)
    run = None
    if segment_ids is not None and time > 1:
        run = cache.runs(segment_ids, placed)
    gate_in, gate_out = _gate("gate_in", gate_in, u), _gate("gate_out", gate_out, u)
    gates = {}
    if placed is None and run is None and not stateful:
        gates, gate_in, gate_out = {"gate_in": gate_in, "gate_out": gate_out}, None, None
    u = u if gate_in is None else u * gate_in
    x = u if placed is None else cache.compact(u, placed)
    if initial_state is None and return_state:
        initial_state = cache.make(ops.shape(u)[0], {"input": (width,)}, dtype=u.dtype)
    if initial_state is None:
        y, state = _fresh(x, k, d, causal, run, **gates), None
    elif isinstance(initial_state, dict) and set(initial_state) == {"window"}:
        y, state = _after_window(x, k, d, initial_state, placed, run)
    else:
        if not held:
            cache.check(initial_state, ("input",), "fft_conv_state(...)")
        if held and not given and time == 1 and relaxed.can_step(initial_state):
            y, state = _relaxed_step(x, d, initial_state, placed)
        else:
            past = relaxed.plain(initial_state) if held else initial_state
            y, state = _after_history(x, k, d, past, placed, run)
            state = relaxed.after_history(state, initial_state, k) if held else state
    y = checks.cast(y, u.dtype)
    if placed is not None:
        y = cache.uncompact(y, placed)
    if gate_out is not None:
        y = y * gate_out
        y = y if placed is None else cache.keep(y, mask)
    return (y, state) if return_state else y


def _gate(name, gate, u):
    """Return a gate as a tensor like u, or None."""
    if gate is None:
        return None
    gate = checks.floating(name, gate, "(B, T, D)")
    for axis, letter in enumerate("BTD"):
        checks.same(f"the {letter} of {name}", gate.shape[axis], u.shape[axis], "u")
    return checks.cast(gate, u.dtype)


def _check_filters(k, width, of):
    """Refuse filters ``(taps, F)`` whose number does not divide the width."""
    filters = checks.static("k", k, 1)
    if width % filters:
        raise ValueError(
            f"Received the number F of filters of k = {filters}; expected a divisor of the width "
            f"D = {width} of {of}, because neighbouring channels share a filter. Give one filter a "
            "channel, or a number that divides them."
        )


def _fresh(x, k, d, causal, run, **gates):
    time, taps = int(x.shape[1]), int(k.shape[0])
    center = 0 if causal else (taps - 1) // 2
    if run is None:
        return parallel.windowed(x, k, center, time, d, **gates)
    y = parallel.segmented(x, k[center : center + time], run)
    if center:
        # What comes from later positions: the same, backwards, without the centre tap.
        back = pad(ops.flip(k[max(0, center - time + 1) : center], axis=0), ((1, 0), (0, 0)))
        late = parallel.segmented(ops.flip(x, axis=1), back, ops.flip(run, axis=1))
        y = y + ops.flip(late, axis=1)
    return _skip(y, x, d)


def _after_window(x, k, d, state, placed, run):
    time, taps = int(x.shape[1]), int(k.shape[0])
    past = checks.cast(state["window"], x.dtype)
    slots = int(past.shape[1])
    if taps - 1 > slots:
        raise ValueError(
            f"Received a filter of {taps} taps and a state of {slots} inputs; expected at most "
            f"{slots + 1} taps. Make the state with fft_conv_state(..., taps={taps})."
        )
    y = _continued(past, x, k, d, run)
    if slots == 0:
        return y, {"window": state["window"]}
    both = ops.concatenate([past, x], axis=1)
    if run is not None:
        last, (first, _), _ = cache.last_run(run, placed)
        slot = ops.arange(slots + time, dtype="int32")[None, :]
        own = ops.where((last > 0)[:, None], slot - slots >= first[:, None], slot >= 0)
        both = cache.keep(both, own)
    if placed is None:
        window = both[:, time:]
    else:
        window = cache.gather(
            both, placed.count[:, None] + ops.arange(slots, dtype="int32")[None, :]
        )
    return y, {"window": ops.cast(window, state["window"].dtype)}


def _after_history(x, k, d, state, placed, run):
    time, taps = int(x.shape[1]), int(k.shape[0])
    length, past = state["length"], cache.slots_of(state, "input")
    kept = reset = None
    if run is not None:
        _, kept, reset = cache.last_run(run, placed)
    new = cache.append(state, {"input": x}, placed, kept, reset)
    if past == 0:
        y = _fresh(x, k, d, True, run)
    elif time == 1:
        y = _skip(_dot(new, k, length), x, d)
    elif taps == 1:
        y = _fresh(x, k, d, True, run)
    else:
        # The past, moved to end where the chunk begins; of a short filter only what it reaches.
        slots = min(past, taps - 1)
        source = ops.arange(slots, dtype="int32")[None, :] - slots + length[:, None]
        there = ops.logical_and(source >= 0, source < past)
        moved = cache.gather(state["input"], ops.clip(source, 0, past - 1))
        y = _continued(ops.cast(cache.keep(moved, there), x.dtype), x, k, d, run)
    return _marked(y, state, past), new


def _relaxed_step(x, d, state, placed):
    y, new = relaxed.step(x, state, placed)
    return _marked(_skip(y, x, d), state, relaxed.slots_of(state)), new


def _marked(y, state, slots):
    """Return y with NaN at positions past the capacity of a fixed state."""
    step = ops.arange(int(y.shape[1]), dtype="int32")[None, :]
    over = cache.beyond(state, slots, state["length"][:, None] + step)
    if over is None:
        return y
    return ops.where(over[:, :, None], ops.full_like(y, float("nan")), y)


def _continued(past, x, k, d, run):
    """Return the convolution of x after a past whose newest input is last."""
    slots, time = min(int(past.shape[1]), int(k.shape[0]) - 1), int(x.shape[1])
    if slots == 0:
        return _fresh(x, k, d, True, run)
    past = past[:, int(past.shape[1]) - slots :]
    if time == 1:
        both = ops.concatenate([past, x], axis=1)
        taps = checks.wide(ops.flip(k[: slots + 1], axis=0))
        y = ops.sum(weighted(checks.wide(both), taps), axis=1, keepdims=True)
        return _skip(y, x, d)
    if run is None:
        both = ops.concatenate([past, x], axis=1)
        return parallel.windowed(both, k, slots, time, d, slots)
    early = parallel.windowed(checks.wide(past), checks.wide(k), slots, time)
    return _skip(cache.keep(early, run == 0) + parallel.segmented(x, k, run), x, d)


def _dot(new, k, length):
    """Return one position: the whole past, itself included, times the filter, newest first."""
    taps = int(k.shape[0])
    held, k = checks.wide(new["input"]), checks.wide(k)
    lag = length[:, None] - ops.arange(int(held.shape[1]), dtype="int32")[None, :]
    there = ops.logical_and(lag >= 0, lag < taps)
    weights = ops.take(k, ops.clip(lag, 0, taps - 1), axis=0)
    return ops.sum(cache.keep(weighted(held, weights), there), axis=1, keepdims=True)


def _skip(y, x, d):
    return y if d is None else y + checks.wide(x) * checks.wide(d)
