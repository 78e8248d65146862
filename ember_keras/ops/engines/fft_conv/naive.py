"""The long convolution in numpy, float64, one output position at a time: the reference."""

import numpy as np


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
    """See `ember_keras.ops.engines.fft_conv.fft_conv`; the state is that of a growing history."""
    u, k = np.asarray(u, np.float64), np.asarray(k, np.float64)
    u = u if gate_in is None else u * np.asarray(gate_in, np.float64)
    gate_out = np.ones_like(u) if gate_out is None else np.asarray(gate_out, np.float64)
    batch, time, width = u.shape
    d = np.zeros(width) if d is None else np.asarray(d, np.float64)
    # Neighbouring channels share a filter, and a skip weight, where there are fewer of them.
    k, d = np.repeat(k, width // k.shape[1], axis=1), np.repeat(d, width // d.shape[0])
    taps = k.shape[0]
    center = 0 if causal else (taps - 1) // 2
    mask = np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros((batch, time), int) if segment_ids is None else np.asarray(segment_ids)
    y = np.zeros((batch, time, width))
    kept = []
    for b in range(batch):
        tokens, runs = [], []
        if initial_state is not None:
            for j in range(int(initial_state["length"][b])):
                tokens.append(np.asarray(initial_state["input"][b][j], np.float64))
                runs.append(0)
        run, previous, places = 0, None, {}
        for t in range(time):
            if not mask[b, t]:
                continue
            if previous is not None and segments[b, t] != previous:
                run += 1
            previous = segments[b, t]
            places[t] = len(tokens)
            tokens.append(u[b, t])
            runs.append(run)
        tokens, runs = np.reshape(tokens, (-1, width)), np.array(runs)
        for t, place in places.items():
            s = place - np.arange(len(tokens)) + center
            reached = (s >= 0) & (s < taps) & (runs == runs[place])
            y[b, t] = np.sum(k[s[reached]] * tokens[reached], axis=0) + d * u[b, t]
            y[b, t] *= gate_out[b, t]
        kept.append([tokens[j] for j in range(len(tokens)) if runs[j] == run])
    if not return_state:
        return y
    slots = max(len(rows) for rows in kept)
    state = {
        "input": np.zeros((batch, slots, width)),
        "length": np.array([len(rows) for rows in kept], np.int32),
    }
    for b, rows in enumerate(kept):
        for j, row in enumerate(rows):
            state["input"][b, j] = row
    return y, state


def gradients(u, k, d, cotangent, *, causal=True, mask=None, segment_ids=None):
    """Return the gradients of ``sum(cotangent * fft_conv(u, k, d, ...))`` as a dict.

    Each product ``k_s u_j`` in ``y_t`` adds ``g_t k_s`` to ``du_j`` and ``g_t u_j`` to
    ``dk_s``; the skip adds ``d g_t`` to ``du_t`` and ``u_t g_t`` to ``dd``. The gradient of a
    filter that channels share is the sum of theirs.
    """
    u, k, d, g = (np.asarray(x, np.float64) for x in (u, k, d, cotangent))
    batch, time, width = u.shape
    filters, skips = k.shape[1], d.shape[0]
    k, d = np.repeat(k, width // filters, axis=1), np.repeat(d, width // skips)
    taps = k.shape[0]
    center = 0 if causal else (taps - 1) // 2
    mask = np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool)
    segments = np.zeros((batch, time), int) if segment_ids is None else np.asarray(segment_ids)
    found = {"u": np.zeros_like(u), "k": np.zeros_like(k), "d": np.zeros_like(d)}
    for b in range(batch):
        real = [t for t in range(time) if mask[b, t]]
        run = np.zeros(len(real), int)
        for at in range(1, len(real)):
            run[at] = run[at - 1] + (segments[b, real[at]] != segments[b, real[at - 1]])
        place = np.arange(len(real))
        for at, t in enumerate(real):
            s = at - place + center
            reached = (s >= 0) & (s < taps) & (run == run[at])
            sources = np.array(real)[reached]
            found["u"][b, sources] += g[b, t] * k[s[reached]]
            found["k"][s[reached]] += g[b, t] * u[b, sources]
            found["u"][b, t] += d * g[b, t]
            found["d"] += u[b, t] * g[b, t]
    found["k"] = found["k"].reshape(taps, filters, -1).sum(axis=2)
    found["d"] = found["d"].reshape(skips, -1).sum(axis=1)
    return found
