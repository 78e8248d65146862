"""Attention as matrix products in `keras.ops`, with memory that is linear in the length.

Three forms, chosen by shape alone: `full` holds the ``(T, S)`` scores of short inputs; `local`
holds the two blocks of keys that a block of queries sees through a window; `chunked` holds the
scores of one chunk of queries at a time, and its gradient recomputes them (FlashAttention,
arXiv 2205.14135, without the split over keys).
"""

import math
from typing import Any, NamedTuple

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.loops import scan

FULL = 2**20
"""Scores a row and head up to which `full` is used."""

HIDDEN = -1e30
"""Score of a key that is not seen: finite, so that a row that sees nothing has no NaN."""

PARTS = 4
"""Pieces a causal sequence is cut into; a piece looks only at the keys before its own end."""


class Sight(NamedTuple):
    """Who sees whom; every tensor has a leading axis of 1 or B.

    Attributes:
        queries: int32 ``(B, T)`` positions counted in real tokens.
        keys: int32 ``(B, S)``.
        real: bool ``(B, S)`` or None, False for keys that are not there.
        query_runs: int32 ``(B, T)`` or None.
        key_runs: int32 ``(B, S)`` or None.
    """

    queries: Any
    keys: Any
    real: Any = None
    query_runs: Any = None
    key_runs: Any = None


def in_order(time, source):
    """Return the `Sight` of a sequence without padding, past or segments."""
    return Sight(ops.arange(time, dtype="int32")[None], ops.arange(source, dtype="int32")[None])


def seen(sight, causal, window):
    """Return bool ``(B or 1, T, S)``, True where a query sees a key; None where all see all."""
    gap = sight.queries[..., :, None] - sight.keys[..., None, :]
    conditions = []
    if causal:
        conditions.append(gap >= 0)
    if window is not None:
        conditions.append((gap if causal else ops.abs(gap)) < window)
    if sight.real is not None:
        conditions.append(sight.real[..., None, :])
    if sight.query_runs is not None:
        conditions.append(sight.query_runs[..., :, None] == sight.key_runs[..., None, :])
    result = None
    for condition in conditions:
        result = condition if result is None else ops.logical_and(result, condition)
    return result


def attend(q, k, v, sight, *, causal, window, scale, plain):
    """Return attention of float32 or float64 tensors, in the cheapest form for the shape.

    Args:
        q: ``(B, T, H, K)``.
        k: ``(B, S, G, K)``.
        v: ``(B, S, G, V)``.
        sight: `Sight`.
        causal: bool.
        window: int or None.
        scale: float.
        plain: bool, True where query ``t`` sits at position ``t`` and key ``s`` at ``s``.
    """
    time, heads, width = (int(size) for size in q.shape[1:])
    source, groups = int(k.shape[1]), int(k.shape[2])
    value_width = int(v.shape[3])
    repeat = heads // groups
    q = ops.reshape(q * scale, (-1, time, groups, repeat, width))
    q = ops.transpose(q, (0, 2, 3, 1, 4))
    k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (k, v))
    if time * source <= FULL or time == 1:
        out = full(q, k, v, seen(sight, causal, window))
    elif plain and window is not None and 4 * window <= source:
        out = local(q, k, v, sight, causal, window)
    elif plain and causal:
        size = -(-time // PARTS)
        pieces = [
            chunked(*_piece(q, k, v, sight, start, min(start + size, time)), causal, window)
            for start in range(0, time, size)
        ]
        out = ops.concatenate(pieces, axis=3)
    else:
        out = chunked(q, k, v, sight, causal, window)
    out = ops.transpose(out, (0, 3, 1, 2, 4))
    return ops.reshape(out, (-1, time, heads, value_width))


def full(q, k, v, visible):
    """Return ``(B, G, R, T, V)`` for q ``(B, G, R, T, K)``, k ``(B, G, S, K)``, v alike."""
    weights, total = _weights(_scores(q, k), visible)
    return _values(weights, v) / total


def local(q, k, v, sight, causal, window):
    """Return `full` through a window, in blocks at least as long as it: cost ``T * window``."""
    time = int(q.shape[3])
    size = max(int(window), 64)
    blocks = -(-time // size)
    extra = blocks * size - time
    reach = (1, 0) if causal else (1, 0, -1)

    def fold(x, axis):
        axis = axis % len(x.shape)
        x = pad(x, [(0, extra if at == axis else 0) for at in range(len(x.shape))])
        shape = [-1, *(int(n) for n in x.shape[1:axis]), blocks, size, *x.shape[axis + 1 :]]
        return ops.moveaxis(ops.reshape(x, shape), axis, 1)

    def reached(x, axis):
        """Fold, and put the neighbours that a block sees beside it."""
        x = fold(x, axis)
        rest = [(0, 0)] * (len(x.shape) - 2)
        views = []
        for back in reach:
            if back > 0:
                views.append(pad(x[:, :-1], [(0, 0), (1, 0), *rest]))
            elif back == 0:
                views.append(x)
            else:
                views.append(pad(x[:, 1:], [(0, 0), (0, 1), *rest]))
        return ops.concatenate(views, axis=axis % (len(x.shape) - 1) + 1)

    real = ops.ones_like(sight.keys, dtype="bool") if sight.real is None else sight.real
    runs = (None, None)
    if sight.query_runs is not None:
        runs = (fold(sight.query_runs, 1), reached(sight.key_runs, 1))
    inner = Sight(fold(sight.queries, 1), reached(sight.keys, 1), reached(real, 1), *runs)
    visible = seen(inner, causal, window)
    qb, kb, vb = fold(q, 3), reached(k, 2), reached(v, 2)
    scores = ops.einsum("bngrtk,bngsk->bngrts", qb, kb)
    weights, total = _weights(scores, visible, lead=2)
    out = ops.einsum("bngrts,bngsv->bngrtv", weights, vb) / total
    out = ops.moveaxis(out, 1, 3)
    shape = (-1, *(int(n) for n in out.shape[1:3]), blocks * size, int(out.shape[-1]))
    return ops.reshape(out, shape)[:, :, :, :time]


def chunked(q, k, v, sight, causal, window):
    """Return `full`, one chunk of queries at a time, with a gradient that recomputes the scores."""
    time, source = int(q.shape[3]), int(k.shape[2])
    size = min(max(FULL // (2 * source), 128), 512, time)
    has = [x is not None for x in sight[2:]]
    flags = [x for x in sight[2:] if x is not None]

    def rebuild(tensors):
        tensors = iter(tensors)
        there = (True, True, *has)
        return Sight(*(next(tensors) if given else None for given in there))

    def forward(q, k, v, *where):
        sight = rebuild(where)

        def chunk(_, piece):
            q, queries, runs = piece
            part = sight._replace(queries=queries, query_runs=runs if has[1] else None)
            weights, total, top = _weights(_scores(q, k), seen(part, causal, window), with_top=True)
            return _, (_values(weights, v) / total, top + ops.log(total))

        runs = sight.query_runs if has[1] else sight.queries
        pieces = (_cut(q, 3, size), _cut(sight.queries, 1, size), _cut(runs, 1, size))
        _, (out, log_total) = scan(chunk, ops.zeros((), "float32"), pieces)
        return _join(out, 3, time), (_join(log_total, 3, time),)

    def backward(inputs, kept, cotangent):
        (q, k, v, *where), (log_total,) = inputs, kept
        sight = rebuild(where)

        def chunk(carry, piece):
            dk, dv = carry
            q, log_total, slope, queries, runs = piece
            part = sight._replace(queries=queries, query_runs=runs if has[1] else None)
            weights = ops.exp(_scores(q, k) - log_total)
            visible = seen(part, causal, window)
            if visible is not None:
                weights = ops.where(visible[:, None, None], weights, ops.zeros_like(weights))
            dv = dv + ops.einsum("bgrts,bgrtv->bgsv", weights, slope)
            toward = _scores(slope, v)
            ds = weights * (toward - ops.sum(weights * toward, axis=-1, keepdims=True))
            dk = dk + ops.einsum("bgrts,bgrtk->bgsk", ds, q)
            return (dk, dv), _values(ds, k)

        runs = sight.query_runs if has[1] else sight.queries
        pieces = tuple(_cut(x, 3, size) for x in (q, log_total, cotangent))
        pieces += (_cut(sight.queries, 1, size), _cut(runs, 1, size))
        (dk, dv), dq = scan(chunk, (ops.zeros_like(k), ops.zeros_like(v)), pieces)
        return (_join(dq, 3, time), dk, dv, *([None] * len(where)))

    tensors = (q, k, v, sight.queries, sight.keys, *flags)
    return with_gradient(forward, backward, saved=range(len(tensors)))(*tensors)


def _piece(q, k, v, sight, start, stop):
    def upto(x, first, axis=1):
        return x if x is None else x[(slice(None),) * axis + (slice(first, stop),)]

    part = Sight(
        upto(sight.queries, start),
        upto(sight.keys, 0),
        upto(sight.real, 0),
        upto(sight.query_runs, start),
        upto(sight.key_runs, 0),
    )
    return upto(q, start, 3), upto(k, 0, 2), upto(v, 0, 2), part


def _scores(q, k):
    """Return ``(B, G, R, T, S)``; the R heads of a group share one matrix product."""
    repeat, time = int(q.shape[2]), int(q.shape[3])
    groups, source, width = (int(size) for size in k.shape[1:])
    rows = ops.reshape(q, (-1, groups, repeat * time, width))
    scores = ops.matmul(rows, ops.swapaxes(k, 2, 3))
    return ops.reshape(scores, (-1, groups, repeat, time, source))


def _values(weights, v):
    groups, repeat, time, source = (int(size) for size in weights.shape[1:])
    rows = ops.matmul(ops.reshape(weights, (-1, groups, repeat * time, source)), v)
    return ops.reshape(rows, (-1, groups, repeat, time, int(v.shape[3])))


def _weights(scores, visible, lead=1, with_top=False):
    """Return unnormalised weights and their sum, which is 1 where nothing is seen."""
    if visible is not None:
        visible = ops.reshape(
            visible,
            (-1, *(int(n) for n in visible.shape[1:lead]), 1, 1, *visible.shape[lead:]),
        )
        scores = ops.where(visible, scores, ops.full_like(scores, HIDDEN))
    # With a least value, TensorFlow takes a batch of no rows too.
    top = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True, initial=-math.inf))
    weights = ops.exp(scores - top)
    if visible is not None:
        weights = ops.where(visible, weights, ops.zeros_like(weights))
    total = ops.sum(weights, axis=-1, keepdims=True)
    total = ops.where(total > 0, total, ops.ones_like(total))
    return (weights, total, top) if with_top else (weights, total)


def _cut(x, axis, size):
    """Return `x` cut along `axis` into chunks, which come first: ``(N, ..., size, ...)``."""
    length = int(x.shape[axis])
    count = -(-length // size)
    extra = count * size - length
    if extra:
        x = pad(x, [(0, extra if at == axis else 0) for at in range(len(x.shape))])
    shape = (-1, *(int(n) for n in x.shape[1:axis]), count, size, *x.shape[axis + 1 :])
    return ops.moveaxis(ops.reshape(x, shape), axis, 0)


def _join(x, axis, length):
    """Undo `_cut`: ``(N, ..., size, ...)`` to a length along `axis`."""
    count, size = int(x.shape[0]), int(x.shape[axis + 1])
    x = ops.moveaxis(x, 0, axis)
    shape = (-1, *(int(n) for n in x.shape[1:axis]), count * size, *x.shape[axis + 2 :])
    x = ops.reshape(x, shape)
    return x[(slice(None),) * axis + (slice(0, length),)]
