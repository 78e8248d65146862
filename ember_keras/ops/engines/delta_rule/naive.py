"""The delta rule in numpy, float64, one position at a time: the reference."""

import numpy as np


def delta_rule(
    q,
    k,
    v,
    beta,
    log_decay=None,
    *,
    erase=None,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """See `ember_keras.ops.engines.delta_rule.delta_rule`."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, time, heads, width = k.shape
    beta = np.ones((batch, time, heads)) if beta is None else np.asarray(beta, np.float64)
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
                old, key, value = state[b, h], k[b, t, h], v[b, t, h]
                if erase is None:
                    decayed = decay[b, t, h][:, None] * old
                    found = decayed.T @ key
                    new = decayed + beta[b, t, h] * np.outer(key, value - found)
                else:
                    removed, towards = (np.asarray(x, np.float64)[b, t, h] for x in erase)
                    new = decay[b, t, h][:, None] * old - np.outer(towards, old.T @ removed)
                    new = new + beta[b, t, h] * np.outer(key, value)
                state[b, h] = new
                out[b, t, h] = new.T @ q[b, t, h]
    return (out, state) if return_state else out
