"""The diagonal recurrences in blocks of positions, and their gradients.

A number is a tuple of its parts here: ``(real,)``, or ``(real, imaginary)``.
"""

import math

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.kernels import loops
from ember_keras.ops.kernels.gradient import with_gradient

BLOCK = 16
"""Positions of a block at most: the loop over them runs for all blocks of a sequence at once."""

CHUNK = 64
"""Positions of which `selective` holds all states at a time."""


def multiply(x, y):
    """Return the product of two numbers."""
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def conjugate(x):
    """Return the complex conjugate of a number."""
    return x if len(x) == 1 else (x[0], -x[1])


def _advance(a, h, b):
    return tuple(p + q for p, q in zip(multiply(a, h), b, strict=True))


def blocked(a, b, h, reverse=False):
    """Return all states of ``h_t = a_t h_{t-1} + b_t``, or from the end of time to its start.

    Blocks of positions are run side by side, twice: first for what each adds and how it decays,
    which gives the states at the borders (by this function again), then from the right states.
    No array of products of decays is made, and nothing is divided.

    Args:
        a: number of shape ``(B, T, ...)`` that broadcasts to that of `b`.
        b: number ``(B, T, ...)``.
        h: number ``(B, ...)``, the state before.
        reverse: bool.
    """
    time = int(b[0].shape[1])
    size = min(BLOCK, math.isqrt(time - 1) + 1) if time > BLOCK else time
    order = range(size - 1, -1, -1) if reverse else range(size)
    if size == time:
        return _run(a, b, h, order, 1)
    count = -(-time // size)
    a = tuple(_blocks(x, count, size, 1.0 if at == 0 else 0.0) for at, x in enumerate(a))
    b = tuple(_blocks(x, count, size, 0.0) for x in b)
    decay = total = None
    for at in order:
        a_t, b_t = _at(a, at, 2), _at(b, at, 2)
        total = b_t if total is None else _advance(a_t, total, b_t)
        decay = a_t if decay is None else multiply(a_t, decay)
    ends = blocked(decay, total, h, reverse)
    h = tuple(ops.expand_dims(x, 1) for x in h)
    if reverse:
        h = tuple(ops.concatenate([x[:, 1:], y], axis=1) for x, y in zip(ends, h, strict=True))
    else:
        h = tuple(ops.concatenate([y, x[:, :-1]], axis=1) for x, y in zip(ends, h, strict=True))
    states = _run(a, b, h, order, 2)
    return tuple(ops.reshape(x, (-1, count * size, *x.shape[3:]))[:, :time] for x in states)


def _run(a, b, h, order, axis):
    found = {}
    for at in order:
        h = found[at] = _advance(_at(a, at, axis), h, _at(b, at, axis))
    parts = range(len(b))
    return tuple(ops.stack([found[t][i] for t in range(len(found))], axis=axis) for i in parts)


def _at(x, at, axis):
    """Position `at` of a number; one that does not change with time has one position."""
    if axis == 1:
        return tuple(part[:, at if int(part.shape[1]) > 1 else 0] for part in x)
    return tuple(part[:, :, at if int(part.shape[2]) > 1 else 0] for part in x)


def _blocks(x, count, size, filling):
    if int(x.shape[1]) == 1:
        return ops.expand_dims(x, 1)
    rest = count * size - int(x.shape[1])
    if rest:
        widths = ((0, 0), (0, rest), *((0, 0) for _ in x.shape[2:]))
        x = pad(x, widths, constant_values=filling)
    return ops.reshape(x, (-1, count, size, *x.shape[2:]))


def recurrence(a, b, h, run):
    """Return all states of ``h_t = a_t h_{t-1} + b_t``, with a gradient that keeps `a` and them.

    The gradient is the same recurrence backwards: ``d_t = g_t + conj(a_{t+1}) d_{t+1}``,
    ``db_t = d_t``, ``da_t = d_t conj(h_{t-1})``.

    Args:
        a: number ``(B, T, ...)``, each axis as in `b` or of size 1.
        b: number ``(B, T, ...)``.
        h: number ``(B, ...)``, the state before.
        run: `blocked` or a kernel with its signature.
    """
    parts = len(b)

    def forward(*tensors):
        a, b, h = (tensors[at * parts : (at + 1) * parts] for at in range(3))
        return run(a, b, h), ()

    def backward(inputs, residuals, cotangent):
        a, h = inputs[:parts], inputs[parts:]
        late = conjugate(tuple(_following(x, at == 0) for at, x in enumerate(a)))
        none = tuple(x[:, 0] * 0.0 for x in cotangent)
        d = run(late, tuple(cotangent), none, True)
        before = tuple(
            ops.concatenate([ops.expand_dims(x, 1), y[:, :-1]], axis=1)
            for x, y in zip(h, residuals, strict=True)
        )
        da = multiply(d, conjugate(before))
        da = tuple(_sum_like(x, y) for x, y in zip(da, a, strict=True))
        dh = multiply(tuple(x[:, 0] for x in d), conjugate(tuple(x[:, 0] for x in a)))
        return (*da, *d, *dh)

    saved = (*range(parts), *range(2 * parts, 3 * parts))
    return with_gradient(forward, backward, saved, keep_output=True)(*a, *b, *h)


def _following(x, real):
    """What stands one position later; at the last position 1, or 0 for an imaginary part."""
    if int(x.shape[1]) == 1:
        return x
    last = ops.ones_like(x[:, :1]) if real else ops.zeros_like(x[:, :1])
    return ops.concatenate([x[:, 1:], last], axis=1)


def _sum_like(x, like):
    axes = [at for at, (n, m) in enumerate(zip(x.shape, like.shape, strict=True)) if m == 1 != n]
    return ops.sum(x, axis=tuple(axes), keepdims=True) if axes else x


def selective(x, delta, a, b, c, h, keep, run):
    """Return ``(y, h)`` of Mamba's scan without its skip; see `selective_scan`.

    The states at the borders of chunks are kept for the gradient, and what is inside is made
    again, a chunk at a time.

    Args:
        x: tensor ``(B, T, D)``.
        delta: tensor ``(B, T, D)``.
        a: tensor ``(K, D)``.
        b: tensor ``(B, T, K)``.
        c: tensor ``(B, T, K)``.
        h: tensor ``(B, K, D)``, the state before.
        keep: tensor ``(B, T)``, 0 where the past is dropped and 1 elsewhere; None drops nothing.
        run: `blocked` or a kernel with its signature.
    """
    time = int(x.shape[1])
    size = min(CHUNK, time)
    count = -(-time // size)

    def split(z, filling=0.0):
        return chunks(z, count, size, filling)

    def states(h, a, x, delta, b, keep):
        decay = ops.exp(ops.expand_dims(delta, 2) * a)
        if keep:
            decay = decay * keep[0][:, :, None, None]
        added = ops.expand_dims(delta * x, 2) * ops.expand_dims(b, 3)
        return decay, run((decay,), (added,), (h,))[0]

    def forward(x, delta, a, b, c, h, *keep):
        def chunk(h, each):
            x, delta, b, c, *keep = each
            _, hs = states(h, a, x, delta, b, keep)
            return hs[:, -1], (ops.sum(hs * ops.expand_dims(c, 3), axis=2), h)

        xs = (*map(split, (x, delta, b, c)), *(split(z, 1.0) for z in keep))
        h, (y, borders) = loops.scan(chunk, h, xs)
        return (joined(y, time), h), (borders,)

    def backward(inputs, residuals, cotangent):
        x, delta, a, b, c, *keep = inputs
        g, dh = cotangent

        def chunk(carry, each):
            dh, da = carry
            x, delta, b, c, g, h, *keep = each
            decay, hs = states(h, a, x, delta, b, keep)
            late = _following(decay, True)
            g_states = ops.expand_dims(g, 2) * ops.expand_dims(c, 3)
            d = run((late,), (g_states,), (dh,), True)[0]
            before = ops.concatenate([ops.expand_dims(h, 1), hs[:, :-1]], axis=1)
            d_log = d * before * decay
            du = ops.sum(d * ops.expand_dims(b, 3), axis=2)
            ddelta = ops.sum(d_log * a, axis=2) + du * x
            db = ops.sum(d * ops.expand_dims(delta * x, 2), axis=3)
            dc = ops.sum(hs * ops.expand_dims(g, 2), axis=3)
            da = da + ops.sum(d_log * ops.expand_dims(delta, 2), axis=(0, 1))
            return (d[:, 0] * decay[:, 0], da), (du * delta, ddelta, db, dc)

        def flipped(z):
            return ops.flip(z, axis=0)

        xs = (*map(split, (x, delta, b, c, g)), residuals[0], *(split(z, 1.0) for z in keep))
        (dh, da), found = loops.scan(chunk, (dh, ops.zeros_like(a)), tuple(map(flipped, xs)))
        dx, ddelta, db, dc = (joined(flipped(z), time) for z in found)
        return (dx, ddelta, da, db, dc, dh, *(None for _ in keep))

    keep = () if keep is None else (keep,)
    saved = (0, 1, 2, 3, 4, *(6 for _ in keep))
    return with_gradient(forward, backward, saved)(x, delta, a, b, c, h, *keep)


def chunks(x, count, size, filling=0.0):
    """Return ``(B, T, ...)`` as chunks ``(count, B, size, ...)``, filled up at the end."""
    rest = count * size - int(x.shape[1])
    if rest:
        widths = ((0, 0), (0, rest), *((0, 0) for _ in x.shape[2:]))
        x = pad(x, widths, constant_values=filling)
    x = ops.reshape(x, (-1, count, size, *x.shape[2:]))
    return ops.transpose(x, (1, 0, *range(2, len(x.shape))))


def joined(x, time):
    """Return chunks ``(count, B, size, ...)`` as ``(B, T, ...)``."""
    count, size = int(x.shape[0]), int(x.shape[2])
    x = ops.transpose(x, (1, 0, *range(2, len(x.shape))))
    return ops.reshape(x, (-1, count * size, *x.shape[3:]))[:, :time]
