"""The public function of the gated linear attention engine."""

import functools

import keras
from keras import ops

from ember_keras.ops import counting, kernels
from ember_keras.ops.engines import cache, checks, chunks, decays
from ember_keras.ops.engines.gated_linear_attention import per_channel, per_head
from ember_keras.ops.engines.timeline import timeline
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.gated_linear_attention)
def gated_linear_attention(
    q,
    k,
    v,
    log_decay=None,
    *,
    beta=None,
    d=None,
    bonus=None,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """Linear attention whose state, a matrix a head, decays.

    ``S_t = diag(a_t) S_{t-1} + k_t v_t^T``, ``o_t = S_t^T q_t``, with ``a_t = exp(log_decay_t)``
    (GLA, arXiv 2312.06635, equation 3; with one decay a head it is Mamba-2's state space duality,
    arXiv 2405.21060, and RetNet, arXiv 2307.08621). With `beta` a position writes
    ``b_t k_t v_t^T``, and with `d` it reads ``o_t + d v_t``. With a `bonus` u it is RWKV's form:
    ``o_t = (S_{t-1} + diag(u) k_t v_t^T)^T q_t`` (Eagle, arXiv 2404.05892).

    A long input is cut into chunks of 64 positions: matrix products inside, a recurrence over
    their states between, memory linear in the length. The arithmetic is float32 for float16,
    bfloat16 and float32 inputs. Decays may be as strong as they like, 0 (``-inf``) among them.

    Args:
        q: tensor ``(B, T, G, K)``; no scale is applied.
        k: tensor ``(B, T, G, K)``.
        v: tensor ``(B, T, H, V)``. ``G`` divides ``H``: head ``h`` reads and writes with the
            queries and keys of group ``h // (H / G)``.
        log_decay: tensor ``(B, T, H)``, one decay a head, or ``(B, T, H, K)``, one a channel, at
            most 0; or None for no decay.
        beta: tensor ``(B, T, H)`` or None, how much of its value a position writes.
        d: tensor ``(H,)`` or None, how much of its value it reads itself.
        bonus: tensor ``(H, K)`` or None, the weight of a position's own key and value.
        initial_state: tensor ``(B, H, K, V)`` or None for zeros.
        return_state: bool. Also return the state after this chunk, float32.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: the
            state passes them unchanged, and their outputs are 0.
        segment_ids: int tensor ``(B, T)``. The state starts anew where another run of equal ids
            begins. The past belongs to the first run, the state after is that of the last.

    Returns:
        ``o`` ``(B, T, H, V)`` in v's dtype, or ``(o, state)``.

    Example:

    >>> import numpy as np
    >>> q, k, v = np.random.normal(size=(3, 2, 100, 4, 8)).astype("float32")
    >>> log_decay = -np.ones((2, 100, 4), "float32")
    >>> o, state = gated_linear_attention(q, k, v, log_decay, return_state=True)
    >>> tuple(o.shape), tuple(state.shape)
    ((2, 100, 4, 8), (2, 4, 8, 8))
    """
    q = checks.floating("q", q, "(B, T, G, K)")
    k = checks.floating("k", k, "(B, T, G, K)")
    v = checks.floating("v", v, "(B, T, H, V)")
    time = _check(q, k, v)
    dtype, heads = v.dtype, int(v.shape[2])
    line = timeline(v, mask, segment_ids)
    q, k, v = (checks.wide(x) for x in (q, k, v))
    log_decay = _log_decay(log_decay, q, v)
    if beta is not None:
        beta = _beta(beta, v)
    if d is not None:
        d = checks.wide(checks.floating("d", d, "(H,)"))
        checks.same("the heads H of d", d.shape[0], heads, "v")
    if bonus is not None:
        bonus = _bonus(bonus, heads, int(q.shape[3]))
    if initial_state is None:
        initial_state = ops.zeros(
            (ops.shape(v)[0], heads, int(k.shape[3]), int(v.shape[3])), v.dtype
        )
    else:
        shape = (v.shape[0], heads, int(k.shape[3]), int(v.shape[3]))
        initial_state = checks.state(initial_state, shape, "(B, H, K, V)")
    if line.mask is not None:
        # What stands at padding may be anything: it is gone before it is multiplied.
        q, k, v = (cache.keep(x, line.mask) for x in (q, k, v))
        log_decay = cache.keep(log_decay, line.mask)
        beta = None if beta is None else cache.keep(beta, line.mask)
    form = _step if time == 1 else _chunked
    o, state = form(q, k, v, log_decay, beta, d, bonus, initial_state, line)
    if line.mask is not None:
        o = cache.keep(o, line.mask)
    o = ops.cast(o, dtype)
    return (o, state) if return_state else o


def _step(q, k, v, log_decay, beta, d, bonus, state, line):
    """Return one position, straight from the equation."""
    heads = int(v.shape[2])
    q, k = (_repeat(x, heads)[:, 0] for x in (q, k))
    update = k[..., :, None] * _written(v, beta)[:, 0][..., None, :]
    decay = ops.exp(log_decay[:, 0])
    new = (decay[..., None, None] if len(decay.shape) == 2 else decay[..., None]) * state + update
    seen = new if bonus is None else state + bonus[..., None] * update
    return _read(ops.sum(seen * q[..., None], axis=2)[:, None], v, d), new


def _written(v, beta):
    return v if beta is None else v * beta[..., None]


def _read(o, v, d):
    return o if d is None else o + v * d[:, None]


def _chunked(q, k, v, log_decay, beta, d, bonus, state, line):
    heads, size = int(v.shape[2]), chunks.size_for(int(v.shape[1]))
    log_decay = ops.maximum(log_decay, ops.full_like(log_decay, decays.FLOOR))
    run = None if line.run is None else chunks.cut_runs(line.run, size)
    asked = {"q": q, "v": v, "log_decay": log_decay}
    kernel = kernels.choose(kernels.request("gated_linear_attention", asked, size=size))
    form = _by_head if len(log_decay.shape) == 3 else _by_channel
    options = {"exclusive": bonus is not None}
    o, last = form(kernel, q, k, v, log_decay, beta, d, state, run, size, options)
    if bonus is not None:
        q, k = _repeat(q, heads), _repeat(k, heads)
        o = o + ops.sum(q * bonus * k, axis=-1, keepdims=True) * _written(v, beta)
    return o, last


def _by_channel(kernel, q, k, v, log_decay, beta, d, state, run, size, options):
    time, heads = int(v.shape[1]), int(v.shape[2])
    tensors = (_repeat(q, heads), _repeat(k, heads), _written(v, beta), log_decay)
    tensors = tuple(chunks.cut(x, size) for x in tensors)
    form = functools.partial(per_channel.run, **options)
    if kernel is None:
        o, last = form(*tensors, state, run)
    else:
        o, last = kernel.run(*tensors, state, run, form=form)
    return _read(chunks.join(o, time), v, d), last


def _by_head(kernel, q, k, v, log_decay, beta, d, state, run, size, options):
    time, heads, width = (int(n) for n in v.shape[1:])
    groups = int(q.shape[2])
    ratio = heads // groups

    def cut(x):
        x = chunks.cut(x, size)
        return ops.reshape(x, (-1, x.shape[1], groups, ratio, size))

    state = ops.reshape(state, (-1, groups, ratio, *(int(n) for n in state.shape[2:])))
    values = v
    if kernel is None:
        form, values = per_head.run, _written(v, beta)
    else:
        form, options = kernel.run, {**options, "beta": None, "d": None}
        if beta is not None:
            options["beta"] = cut(beta)
        if d is not None:
            options["d"] = ops.reshape(d, (groups, ratio))
    o, last = form(
        chunks.cut(q, size),
        chunks.cut(k, size),
        chunks.cut(ops.reshape(values, (-1, time, groups, ratio, width)), size),
        cut(log_decay),
        ops.swapaxes(state, 2, 3),
        () if run is None else tuple(chunks.sight(run, size, v.dtype, strict=options["exclusive"])),
        **options,
    )
    o = ops.reshape(chunks.join(o, time), (-1, time, heads, width))
    last = ops.reshape(ops.swapaxes(last, 2, 3), (-1, heads, *last.shape[2:3], width))
    return (_read(o, v, d) if kernel is None else o), last


def _repeat(x, heads):
    """Return `x` ``(B, T, G, K)`` with each group as often as it has heads."""
    ratio = heads // int(x.shape[2])
    return x if ratio == 1 else ops.repeat(x, ratio, axis=2)


def _log_decay(log_decay, q, v):
    if log_decay is None:
        return ops.zeros_like(v[..., 0])
    rank = len(log_decay.shape) if hasattr(log_decay, "shape") else 0
    letters = "(B, T, H, K)" if rank == 4 else "(B, T, H)"
    log_decay = checks.floating("log_decay", log_decay, letters)
    checks.same("the batch of log_decay", log_decay.shape[0], v.shape[0], "v")
    checks.same("the length T of log_decay", log_decay.shape[1], v.shape[1], "v")
    checks.same("the heads H of log_decay", log_decay.shape[2], v.shape[2], "v")
    if rank == 4:
        checks.same("the width K of log_decay", log_decay.shape[3], q.shape[3], "q")
    return checks.wide(log_decay)


def _beta(beta, v):
    beta = checks.floating("beta", beta, "(B, T, H)")
    for axis, letter in enumerate(("batch", "length T", "heads H")):
        checks.same(f"the {letter} of beta", beta.shape[axis], v.shape[axis], "v")
    return checks.wide(beta)


def _bonus(bonus, heads, width):
    bonus = checks.floating("bonus", bonus, "(H, K)")
    checks.same("the heads H of bonus", bonus.shape[0], heads, "v")
    checks.same("the width K of bonus", bonus.shape[1], width, "q")
    return checks.wide(bonus)


def _check(q, k, v):
    time = checks.static("v", v, 1)
    for name, x in (("q", q), ("k", k)):
        checks.same(f"the batch of {name}", x.shape[0], v.shape[0], "v")
        checks.same(f"the length T of {name}", x.shape[1], time, "v")
    checks.same("the groups G of k", k.shape[2], q.shape[2], "q")
    checks.same("the width K of k", k.shape[3], q.shape[3], "q")
    heads, groups = int(v.shape[2]), int(q.shape[2])
    if groups < 1 or heads % groups:
        raise ValueError(
            f"Received {heads} heads in v and {groups} groups in q; expected groups that divide "
            "the heads. Change one of the two numbers."
        )
    dtypes = {keras.backend.standardize_dtype(x.dtype) for x in (q, k, v)}
    if len(dtypes) > 1:
        raise TypeError(
            f"Received q, k and v of dtypes {', '.join(sorted(dtypes))}; expected one dtype. "
            "Cast them to the same dtype."
        )
    return time
