"""The public function of the attention engine."""

import math
import numbers

import keras
from keras import ops

from ember_keras.backend import pad
from ember_keras.ops import counting, kernels
from ember_keras.ops.engines import cache, checks
from ember_keras.ops.engines.attention import parallel
from ember_keras.ops.tensor.nests import wrap


def attention_state(
    batch_size, groups, key_dim, value_dim=None, max_length=None, dtype=None, window=None
):
    """Return an empty past for `attention`.

    Args:
        batch_size: int, rows ``B``.
        groups: int, key and value heads ``G``.
        key_dim: int, ``K``.
        value_dim: int or None, ``V``; None is ``K``.
        max_length: int or None. Positions the state can hold. With it the shapes never change,
            so that a compiled step is compiled once; None makes a state that grows.
        dtype: str or None, of the stored keys and values; None is `keras.config.floatx()`.
        window: int or None. Of attention through a window, whose past is its last ``window - 1``
            positions: constant in size, and it never overflows. Not together with `max_length`.

    Returns:
        dict with ``key`` ``(B, M, G, K)``, ``value`` ``(B, M, G, V)``, ``length`` ``(B,)`` int32,
        and ``capacity`` ``()`` int32 where `max_length` is given, or ``window`` ``()`` int32 where
        `window` is. ``M`` is `max_length`, or ``window - 1`` with the newest last, or 0.

    Example:

    >>> state = attention_state(batch_size=2, groups=1, key_dim=8, max_length=16)
    >>> tuple(state["key"].shape)
    (2, 16, 1, 8)
    """
    tails = {"key": (groups, key_dim), "value": (groups, value_dim or key_dim)}
    return cache.make(batch_size, tails, max_length, dtype, window)


@wrap
@counting.counted(counting.attention)
def attention(
    q,
    k,
    v,
    *,
    causal=True,
    window=None,
    scale=None,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """Softmax attention with grouped heads, windows, padding, packed segments and a past.

    ``o_t = sum_s softmax_s(scale * q_t . k_s) v_s`` over the positions ``s`` that ``t`` sees
    (arXiv 1706.03762; grouped heads arXiv 2305.13245). Head ``h`` reads key group
    ``h // (H / G)``. The arithmetic is float32 for float16, bfloat16 and float32 inputs; memory
    grows linearly with the length.

    Args:
        q: tensor ``(B, T, H, K)``.
        k: tensor ``(B, S, G, K)``; ``G`` divides ``H``.
        v: tensor ``(B, S, G, V)``.
        causal: bool. True: ``t`` sees ``s <= t``, and ``S`` must equal ``T``.
        window: int or None. ``t`` sees ``t - window < s <= t``, or ``|t - s| < window`` where
            not causal, counted in real tokens.
        scale: float or None; None is ``1 / sqrt(K)``.
        initial_state: dict from `attention_state` or an earlier call, or None for an empty past.
            After one made with a window, `window` is at most that.
        return_state: bool. Also return the past after this chunk.
        mask: bool tensor ``(B, S)`` over the keys, True at real positions. Padded positions are
            not there: nobody sees them, they take no place in a window or in the state, and
            where ``causal`` their own outputs are 0.
        segment_ids: int tensor ``(B, T)``. Positions see only their own run of equal ids. The
            past belongs to the first run of the chunk, and the state after it holds the last.

    Returns:
        ``o`` ``(B, T, H, V)`` in q's dtype, or ``(o, state)``. A position that sees nothing
        outputs 0. In traced code, positions past the capacity of a state are NaN.

    Example:

    >>> import numpy as np
    >>> q = np.random.normal(size=(2, 5, 4, 8)).astype("float32")
    >>> kv = np.random.normal(size=(2, 5, 2, 8)).astype("float32")
    >>> o, state = attention(q, kv, kv, return_state=True)
    >>> tuple(o.shape), tuple(state["key"].shape)
    ((2, 5, 4, 8), (2, 5, 2, 8))
    """
    q = checks.floating("q", q, "(B, T, H, K)")
    k = checks.floating("k", k, "(B, S, G, K)")
    v = checks.floating("v", v, "(B, S, G, V)")
    stateful = initial_state is not None or return_state
    time, source = _check(q, k, v, causal, window, segment_ids, stateful)
    mask = checks.rows("mask", mask, k.shape[0], source, "bool")
    segment_ids = checks.rows("segment_ids", segment_ids, q.shape[0], time, "int32")
    scale = float(int(q.shape[3]) ** -0.5 if scale is None else scale)
    if not math.isfinite(scale):
        raise ValueError(
            f"Received scale={scale}; expected a finite number, or None for its usual."
        )
    options = {"causal": causal, "window": window, "scale": scale}
    if not stateful:
        return _stateless(q, k, v, mask, segment_ids, options)
    names = ("key", "value")
    if initial_state is None:
        groups, width, value_width = int(k.shape[2]), int(k.shape[3]), int(v.shape[3])
        batch = ops.shape(k)[0]
        initial_state = cache.make(
            batch, {"key": (groups, width), "value": (groups, value_width)}, dtype=k.dtype
        )
    cache.check(initial_state, names, "attention_state(...)")
    return _stateful(q, k, v, mask, segment_ids, initial_state, return_state, options)


def _stateless(q, k, v, mask, segment_ids, options):
    sight = parallel.in_order(int(q.shape[1]), int(k.shape[1]))
    if mask is None:
        if segment_ids is not None:
            run = cache.runs(segment_ids)
            sight = sight._replace(query_runs=run, key_runs=run)
        return _run(q, k, v, sight, options, plain=True)
    placed = None
    if options["window"] is not None or segment_ids is not None:
        placed = cache.layout(mask)
    if options["window"] is not None:
        # Compacted, the padding is at the end and positions count real tokens.
        run = None if segment_ids is None else cache.runs(segment_ids, placed)
        q, k, v = (cache.compact(x, placed) for x in (q, k, v))
        sight = sight._replace(real=placed.filled, query_runs=run, key_runs=run)
        return cache.uncompact(_run(q, k, v, sight, options, plain=True), placed)
    k, v = cache.keep(k, mask), cache.keep(v, mask)
    sight = sight._replace(real=mask)
    if segment_ids is not None:
        run = cache.gather(cache.runs(segment_ids, placed), placed.inverse)
        sight = sight._replace(query_runs=run, key_runs=run)
    square = options["causal"] or segment_ids is not None
    out = _run(q, k, v, sight, options, plain=True)
    return cache.keep(out, mask) if square else out


def _stateful(q, k, v, mask, segment_ids, state, return_state, options):
    time = int(q.shape[1])
    placed = None if mask is None or time == 1 else cache.layout(mask)
    run = kept = reset = None
    if segment_ids is not None and time > 1:
        run = cache.runs(segment_ids, placed)
        _, kept, reset = cache.last_run(run, placed)
    if placed is not None:
        q, k, v = (cache.compact(x, placed) for x in (q, k, v))
    length = state["length"]
    step = ops.arange(time, dtype="int32")[None, :]
    positions = length[:, None] + step
    if time == 1 and mask is not None:
        placed = cache.single(mask)
    if "window" in state:
        out = _after_window(q, k, v, state, positions, placed, run, options)
        new = cache.roll(state, {"key": k, "value": v}, placed, kept, reset)
        if placed is not None:
            out = cache.uncompact(out, placed)
        return (out, new) if return_state else out
    new = cache.append(state, {"key": k, "value": v}, placed, kept, reset)
    past = cache.slots_of(state, "key")
    if past == 0:
        real = None if placed is None else placed.filled
        sight = parallel.Sight(step, step, real, run, run)
        out = _run(q, k, v, sight, options, plain=True)
    elif time == 1:
        keys, values = ops.cast(new["key"], k.dtype), ops.cast(new["value"], v.dtype)
        slots = ops.arange(int(keys.shape[1]), dtype="int32")[None, :]
        sight = parallel.Sight(positions, slots, slots < new["length"][:, None])
        out = _run(q, keys, values, sight, options)
    else:
        out = _run(*_with_past(q, k, v, state, positions, placed, run), options)
    over = cache.beyond(state, cache.slots_of(state, "key"), positions)
    if over is not None:
        over = cache.spread(over, 4)
        out = ops.where(over, ops.full_like(out, float("nan")), out)
    if placed is not None:
        out = cache.uncompact(out, placed)
    return (out, new) if return_state else out


def _after_window(q, k, v, state, positions, placed, run, options):
    """Return the output of a chunk after the window that precedes it."""
    time, past, window = int(q.shape[1]), cache.slots_of(state, "key"), options["window"]
    if window is None or window - 1 > past:
        raise ValueError(
            f"Received window={window} and a state that holds {past} positions; expected a window "
            f"of at most {past + 1}. Make the state with attention_state(..., window={window})."
        )
    if past == 0:
        real = None if placed is None else placed.filled
        step = ops.arange(time, dtype="int32")[None, :]
        return _run(q, k, v, parallel.Sight(step, step, real, run, run), options, plain=True)
    q, keys, values, sight = _with_past(q, k, v, state, positions, placed, run)
    if time * (past + time) <= parallel.FULL:
        return _run(q, keys, values, sight, options)
    # Queries of the past too, whose outputs are dropped: in order, a long chunk costs T * window.
    q = pad(q, ((0, 0), (past, 0), (0, 0), (0, 0)))
    sight = sight._replace(queries=sight.keys, query_runs=sight.key_runs)
    return _run(q, keys, values, sight, options, plain=True)[:, past:]


def _with_past(q, k, v, state, positions, placed, run):
    """Return q, and the keys, values and `Sight` of the past followed by the chunk."""
    if "window" in state:
        here, there = cache.held(state, "key")
    else:
        slots = ops.arange(cache.slots_of(state, "key"), dtype="int32")[None, :]
        here = slots + ops.zeros_like(state["length"])[:, None]
        there = slots < state["length"][:, None]
    filled = ops.ones_like(positions, dtype="bool") if placed is None else placed.filled
    keys = ops.concatenate([ops.cast(state["key"], k.dtype), k], axis=1)
    values = ops.concatenate([ops.cast(state["value"], v.dtype), v], axis=1)
    sight = parallel.Sight(
        positions,
        ops.concatenate([here, positions], axis=1),
        ops.concatenate([there, filled], axis=1),
        run,
        None if run is None else ops.concatenate([ops.zeros_like(here), run], axis=1),
    )
    return q, keys, values, sight


def _run(q, k, v, sight, options, plain=False):
    masked = not plain or sight.real is not None or sight.query_runs is not None
    causal, window = options["causal"], options["window"]
    request = kernels.request(
        "attention", {"q": q, "k": k, "v": v}, causal=causal, window=window, masked=masked
    )
    kernel = kernels.choose(request)
    if kernel is not None:
        needed = masked or window is not None
        visible = (lambda: parallel.seen(sight, causal, window)) if needed else None
        return kernel.run(q, k, v, visible=visible, **options)
    dtype = q.dtype
    q, k, v = (checks.wide(x) for x in (q, k, v))
    return ops.cast(parallel.attend(q, k, v, sight, plain=plain, **options), dtype)


def _check(q, k, v, causal, window, segment_ids, stateful):
    time, source = checks.static("q", q, 1), checks.static("k", k, 1)
    checks.same("the batch of k", k.shape[0], q.shape[0], "q")
    checks.same("the batch of v", v.shape[0], q.shape[0], "q")
    checks.same("the width K of k", k.shape[3], q.shape[3], "q")
    checks.same("the length S of v", v.shape[1], source, "k")
    checks.same("the groups G of v", v.shape[2], k.shape[2], "k")
    heads, groups = int(q.shape[2]), int(k.shape[2])
    if groups < 1 or heads % groups:
        raise ValueError(
            f"Received {heads} heads in q and {groups} groups in k; expected groups that divide "
            "the heads. Change one of the two numbers."
        )
    dtypes = {keras.backend.standardize_dtype(x.dtype) for x in (q, k, v)}
    if len(dtypes) > 1:
        raise TypeError(
            f"Received q, k and v of dtypes {', '.join(sorted(dtypes))}; expected one dtype. "
            "Cast them to the same dtype."
        )
    if window is not None and (not isinstance(window, numbers.Integral) or window < 1):
        raise ValueError(
            f"Received window={window}; expected an integer >= 1, or None for no window. "
            "A window of 1 sees only the position itself."
        )
    if stateful and not causal:
        raise ValueError(
            "Received initial_state or return_state=True with causal=False; expected causal=True, "
            "because a bidirectional pass needs the whole sequence at once. Drop the state."
        )
    if time != source and (causal or window is not None or segment_ids is not None):
        raise ValueError(
            f"Received q of length {time} and k of length {source}; expected equal lengths for "
            "causal, windowed or segmented attention. Pass the chunk's own keys, and the past "
            "as initial_state."
        )
    return time, source
