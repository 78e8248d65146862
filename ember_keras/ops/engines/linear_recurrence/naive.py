"""The diagonal recurrences in numpy, float64, one position at a time: the reference."""

import numpy as np


def linear_recurrence(
    a,
    b,
    *,
    log_space=False,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """See `ember_keras.ops.engines.linear_recurrence.linear_recurrence`."""
    pairs = isinstance(a, tuple | list) or isinstance(b, tuple | list)
    a, b = _number(a), _number(b)
    if log_space:
        a = np.exp(a)
    a = np.broadcast_to(a, b.shape)
    h = np.zeros((b.shape[0], *b.shape[2:]), np.result_type(a, b))
    if initial_state is not None:
        h = h + _number(initial_state)
    y = np.zeros(b.shape, h.dtype)
    for row, places in enumerate(_real_positions(mask, segment_ids, b.shape[:2])):
        for t, starts in places:
            h[row] = b[row, t] if starts else a[row, t] * h[row] + b[row, t]
            y[row, t] = h[row]
    if pairs:
        y, h = (y.real, y.imag), (h.real, h.imag)
    return (y, h) if return_state else y


def selective_scan(
    x,
    delta,
    a,
    b,
    c,
    d=None,
    *,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """See `ember_keras.ops.engines.linear_recurrence.selective_scan`."""
    x, delta, a, b, c = (np.asarray(z, np.float64) for z in (x, delta, a, b, c))
    d = np.zeros(x.shape[2]) if d is None else np.asarray(d, np.float64)
    h = np.zeros((x.shape[0], *a.shape))
    if initial_state is not None:
        h = h + np.asarray(initial_state, np.float64)
    y = np.zeros(x.shape)
    for row, places in enumerate(_real_positions(mask, segment_ids, x.shape[:2])):
        for t, starts in places:
            past = np.zeros(a.shape) if starts else np.exp(delta[row, t][:, None] * a) * h[row]
            h[row] = past + (delta[row, t] * x[row, t])[:, None] * b[row, t]
            y[row, t] = h[row] @ c[row, t] + d * x[row, t]
    return (y, h) if return_state else y


def diagonal_state_space(
    u,
    a,
    c,
    d=None,
    *,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """See `ember_keras.ops.engines.linear_recurrence.diagonal_state_space`."""
    u, a, c = np.asarray(u, np.float64), np.exp(_number(a)), _number(c)
    d = np.zeros(u.shape[2]) if d is None else np.asarray(d, np.float64)
    h = np.zeros((u.shape[0], *a.shape), complex)
    if initial_state is not None:
        h = h + _number(initial_state)
    y = np.zeros(u.shape)
    for row, places in enumerate(_real_positions(mask, segment_ids, u.shape[:2])):
        for t, starts in places:
            past = 0.0 if starts else a * h[row]
            h[row] = past + u[row, t][:, None]
            y[row, t] = np.sum(c * h[row], axis=1).real + d * u[row, t]
    return (y, (h.real, h.imag)) if return_state else y


def wkv(
    k,
    v,
    log_decay,
    bonus,
    *,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """See `ember_keras.ops.engines.linear_recurrence.wkv`."""
    k, v, log_decay, bonus = (np.asarray(z, np.float64) for z in (k, v, log_decay, bonus))
    empty = np.full((k.shape[0], k.shape[2]), -1e30)
    scale, sums = empty.copy(), np.zeros((2, *empty.shape))
    if initial_state is not None:
        given = {key: np.asarray(z, np.float64) for key, z in initial_state.items()}
        scale = given["log_scale"].copy()
        sums = np.stack([given["numerator"], given["denominator"]]) * np.exp(scale)
    y = np.zeros(v.shape)
    for row, places in enumerate(_real_positions(mask, segment_ids, k.shape[:2])):
        for t, starts in places:
            if starts:
                sums[:, row], scale[row] = 0.0, -1e30
            entry = np.stack([v[row, t], np.ones_like(v[row, t])])
            seen = sums[:, row] + np.exp(bonus + k[row, t]) * entry
            y[row, t] = seen[0] / seen[1]
            sums[:, row] = np.exp(log_decay) * sums[:, row] + np.exp(k[row, t]) * entry
            scale[row] = np.maximum(scale[row] + log_decay, k[row, t])
    sums = sums * np.exp(-np.where(scale > -1e29, scale, 0.0))
    state = {"numerator": sums[0], "denominator": sums[1], "log_scale": scale}
    return (y, state) if return_state else y


def gradients(
    a, b, initial_state, cotangent, *, log_space=False, mask=None, segment_ids=None
):  # fmt: skip
    """Return the gradients of ``sum(cotangent * linear_recurrence(a, b, ...))`` as a dict.

    With `d_t` the gradient of the state at `t`: ``d_t = g_t + conj(a_{t+1}) d_{t+1}``,
    ``db_t = d_t``, ``da_t = d_t conj(h_{t-1})``. Complex gradients are ``d/d real + i d/d imag``;
    for pairs the cotangent is a pair too, and so are the gradients.
    """
    pairs = isinstance(b, tuple | list)
    given, b, g = _number(a), _number(b), _number(cotangent)
    a = np.broadcast_to(np.exp(given) if log_space else given, b.shape)
    h0 = _number(initial_state)
    da, db, dh0 = np.zeros_like(a * b), np.zeros_like(a * b), np.zeros_like(h0)
    for row, places in enumerate(_real_positions(mask, segment_ids, b.shape[:2])):
        before, h = [], h0[row]
        for t, starts in places:
            before.append(np.zeros_like(h) if starts else h)
            h = a[row, t] * before[-1] + b[row, t]
        d = np.zeros_like(h)
        for (t, starts), past in zip(reversed(places), reversed(before), strict=True):
            d = d + g[row, t]
            db[row, t] = d
            da[row, t] = d * np.conj(past)
            d = np.zeros_like(d) if starts else np.conj(a[row, t]) * d
        dh0[row] = d
    if log_space:
        da = da * np.conj(a)
    da = _sum_to(da, given.shape)
    found = {"a": da, "b": db, "initial_state": dh0}
    return {k: (v.real, v.imag) if pairs else v for k, v in found.items()}


def _sum_to(x, shape):
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    for axis, size in enumerate(shape):
        if size == 1:
            x = x.sum(axis=axis, keepdims=True)
    return x


def _number(x):
    if isinstance(x, tuple | list):
        real, imaginary = (np.asarray(part, np.float64) for part in x)
        return real + 1j * imaginary
    return np.asarray(x, np.float64)


def _real_positions(mask, segment_ids, shape):
    """A list of ``(t, starts)`` a row: the real positions, and where a later segment begins."""
    batch, time = shape
    mask = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros(shape, int) if segment_ids is None else np.asarray(segment_ids)
    rows = []
    for row in range(batch):
        places, previous = [], None
        for t in range(time):
            if mask[row, t]:
                places.append((t, previous is not None and segments[row, t] != previous))
                previous = segments[row, t]
        rows.append(places)
    return rows
