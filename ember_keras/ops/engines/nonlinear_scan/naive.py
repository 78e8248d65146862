"""The nonlinear scan in numpy, float64, one row and one position at a time: the reference."""

import numpy as np


def nonlinear_scan(
    cell,
    x,
    *,
    weights=None,
    initial_state=None,
    fresh_state=None,
    unroll=1,
    truncate=None,
    recompute=False,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """See `ember_keras.ops.engines.nonlinear_scan.nonlinear_scan`.

    `cell` is given float64 arrays. `unroll`, `truncate` and `recompute` change no output.
    """
    x, weights = _map(_double, x), _map(_double, weights)
    batch, time = _leaves(x)[0].shape[:2]
    rows = [
        _row(
            b,
            time,
            lambda x, state: cell(x, state) if weights is None else cell(x, state, weights),
            x,
            initial_state,
            fresh_state,
            np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool),
            np.zeros((batch, time), int) if segment_ids is None else np.asarray(segment_ids),
        )
        for b in range(batch)
    ]
    y = _map(lambda *each: np.stack(each), *(y for y, _ in rows))
    if not return_state:
        return y
    return y, _map(lambda *each: np.concatenate(each), *(state for _, state in rows))


def _row(b, time, cell, x, initial_state, fresh_state, mask, segments):
    def own(nest):
        return _map(lambda leaf: _double(leaf)[b : b + 1] if len(leaf) > 1 else _double(leaf), nest)

    if fresh_state is None:
        fresh = _map(np.zeros_like, own(initial_state))
    else:
        fresh = own(fresh_state)
    state = fresh if initial_state is None else _map(lambda s: _double(s)[b : b + 1], initial_state)
    outputs, previous = {}, None
    for t in range(time):
        if not mask[b, t]:
            continue
        if previous is not None and segments[b, t] != previous:
            state = fresh
        previous = segments[b, t]
        y, state = cell(_map(lambda leaf, t=t: leaf[b : b + 1, t], x), state)
        y, state = _map(_double, y), _map(_double, state)
        outputs[t] = _map(lambda leaf: leaf[0], y)
    if not outputs:
        y, _ = cell(_map(lambda leaf: np.zeros_like(leaf[b : b + 1, 0]), x), state)
        nothing = _map(lambda leaf: np.zeros_like(_double(leaf)[0]), y)
    else:
        nothing = _map(np.zeros_like, next(iter(outputs.values())))
    steps = [outputs.get(t, nothing) for t in range(time)]
    return _map(lambda *each: np.stack(each), *steps), state


def _double(x):
    return np.asarray(x, np.float64)


def _map(function, first, *others):
    if isinstance(first, dict):
        return {key: _map(function, first[key], *(o[key] for o in others)) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(_map(function, *each) for each in zip(first, *others, strict=True))
    return None if first is None else function(first, *others)


def _leaves(nest):
    if isinstance(nest, dict):
        nest = list(nest.values())
    if isinstance(nest, tuple | list):
        return [leaf for each in nest for leaf in _leaves(each)]
    return [nest]
