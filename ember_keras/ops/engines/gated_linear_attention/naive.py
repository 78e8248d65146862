"""Gated linear attention in numpy, float64, one position at a time: the reference."""

import numpy as np


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
    """See `ember_keras.ops.engines.gated_linear_attention.gated_linear_attention`."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, time, groups, width = k.shape
    heads = v.shape[2]
    decay = np.ones((batch, time, heads, 1))
    if log_decay is not None:
        decay = np.exp(np.asarray(log_decay, np.float64)).reshape(batch, time, heads, -1)
    mask = np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros((batch, time), int) if segment_ids is None else np.asarray(segment_ids)
    state = np.zeros((batch, heads, width, v.shape[3]))
    if initial_state is not None:
        state = np.array(initial_state, np.float64)
    out = np.zeros((batch, time, heads, v.shape[3]))
    for b in range(batch):
        previous = None
        for t in range(time):
            if not mask[b, t]:
                continue
            if previous is not None and segments[b, t] != previous:
                state[b] = 0.0
            previous = segments[b, t]
            for h in range(heads):
                g = h // (heads // groups)
                written = 1.0 if beta is None else np.float64(beta[b, t, h])
                update = written * np.outer(k[b, t, g], v[b, t, h])
                if bonus is not None:
                    seen = state[b, h] + np.asarray(bonus, np.float64)[h][:, None] * update
                state[b, h] = decay[b, t, h][:, None] * state[b, h] + update
                out[b, t, h] = (state[b, h] if bonus is None else seen).T @ q[b, t, g]
                if d is not None:
                    out[b, t, h] += np.float64(d[h]) * v[b, t, h]
    return (out, state) if return_state else out
