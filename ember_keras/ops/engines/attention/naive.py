"""Attention in numpy, float64, one query at a time: the reference."""

import numpy as np


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
    """See `ember_keras.ops.engines.attention.attention`; the state grows."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, time, heads, width = q.shape
    source, groups = k.shape[1], k.shape[2]
    scale = width**-0.5 if scale is None else scale
    mask = np.ones((batch, source), bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros((batch, source), int) if segment_ids is None else np.asarray(segment_ids)
    out = np.zeros((batch, time, heads, v.shape[-1]))
    states = []
    for b in range(batch):
        keys, values, run = _past(initial_state, b)
        past = len(keys)
        runs = [0] * past
        previous = None
        places = {}
        for s in range(source):
            if not mask[b, s]:
                continue
            if previous is not None and segments[b, s] != previous:
                run += 1
            previous = segments[b, s]
            places[s] = len(keys)
            keys.append(k[b, s])
            values.append(v[b, s])
            runs.append(run)
        keys, values, runs = np.array(keys), np.array(values), np.array(runs)
        order = np.arange(len(keys))
        for t in range(time):
            if t not in places and (causal or segment_ids is not None or window is not None):
                continue
            seen = np.ones(len(keys), bool)
            if causal:
                seen &= order <= places[t]
            if window is not None:
                seen &= abs(places[t] - order) < window
            if segment_ids is not None:
                seen &= runs == runs[places[t]]
            if not seen.any():
                continue
            for h in range(heads):
                g = h // (heads // groups)
                scores = scale * keys[seen, g] @ q[b, t, h]
                weights = np.exp(scores - scores.max())
                out[b, t, h] = weights @ values[seen, g] / weights.sum()
        held = [j for j in range(len(keys)) if runs[j] == run]
        states.append(([keys[j] for j in held], [values[j] for j in held]))
    if not return_state:
        return out
    slots = max(len(rows) for rows, _ in states)
    state = {
        "key": np.zeros((batch, slots, *k.shape[2:])),
        "value": np.zeros((batch, slots, *v.shape[2:])),
        "length": np.array([len(rows) for rows, _ in states], np.int32),
    }
    for b, (rows, others) in enumerate(states):
        for j in range(len(rows)):
            state["key"][b, j] = rows[j]
            state["value"][b, j] = others[j]
    return out, state


def _past(state, b):
    if state is None:
        return [], [], 0
    length = int(state["length"][b])
    keys = [np.asarray(x, np.float64) for x in state["key"][b][:length]]
    values = [np.asarray(x, np.float64) for x in state["value"][b][:length]]
    return keys, values, 0


def gradients(q, k, v, cotangent, **options):
    """Return the gradients of ``sum(cotangent * attention(q, k, v, **options))``.

    The softmax rule, written out one query at a time: with weights ``p``, output ``o = p V`` and
    cotangent ``g``: ``dV += p^T g``, ``ds = p * (V g - o.g)``, ``dq = scale * ds K``,
    ``dk += scale * ds^T q``. The weights are read off by attending to one-hot values.

    Returns:
        dict of float64 arrays ``q``, ``k``, ``v``.
    """
    q, k, v, cotangent = (np.asarray(x, np.float64) for x in (q, k, v, cotangent))
    groups = k.shape[2]
    repeat = q.shape[2] // groups
    scale = q.shape[-1] ** -0.5 if options.get("scale") is None else options["scale"]
    one_hot = np.broadcast_to(np.eye(k.shape[1])[None, :, None], (*k.shape[:3], k.shape[1]))
    p = attention(q, k, one_hot, **options)
    found = {"q": np.zeros_like(q), "k": np.zeros_like(k), "v": np.zeros_like(v)}
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            for h in range(q.shape[2]):
                g = h // repeat
                weights, slope = p[b, t, h], cotangent[b, t, h]
                toward = v[b, :, g] @ slope
                ds = weights * (toward - weights @ toward)
                found["v"][b, :, g] += weights[:, None] * slope[None, :]
                found["q"][b, t, h] = scale * (ds @ k[b, :, g])
                found["k"][b, :, g] += scale * ds[:, None] * q[b, t, h][None, :]
    return found
