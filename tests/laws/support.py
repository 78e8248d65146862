"""Running what the laws compare."""

import numpy as np
from keras import tree

import ember_keras as ek


def numpy_of(nest):
    """The same nest with numpy arrays for tensors."""
    return tree.map_structure(ek.backend.to_numpy, nest)


def run(layer, x, **options):
    """The output of a call without a state, in numpy."""
    return ek.backend.to_numpy(layer(x, **options))


def run_chunks(layer, x, sizes, max_length=None, **options):
    """Runs `x` in chunks of `sizes` from an initial state; the outputs in numpy, and the last
    state."""
    state = layer.initial_state(len(x), max_length)
    outputs, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        here = {key: value[:, part] for key, value in options.items()}
        y, state = layer(x[:, part], state=state, return_state=True, **here)
        outputs.append(ek.backend.to_numpy(y))
        start += size
    return outputs, state


def run_steps(layer, x, state):
    """Runs `x` position by position from a state; the outputs in numpy, and the last state."""
    outputs = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state)
        outputs.append(ek.backend.to_numpy(y))
    return outputs, state


def at_real(y, mask):
    """The outputs at real positions, row after row."""
    return np.concatenate([row[real] for row, real in zip(y, mask, strict=True)])
