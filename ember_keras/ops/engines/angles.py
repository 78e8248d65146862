"""Multiples of an angle whose whole turns cost no digits.

A product `angle * times` of many turns is rounded to as many digits as one of less than a turn, and
most of them count whole turns: of 64 thousand radians float32 leaves 0.004 of one. Here an angle is
a whole number of `STEPS`-ths of a turn and a small rest. The multiples of the first are integers,
whose turns are taken off exactly, and those of the rest are few turns: in float32, what is left
is right to about 3e-7, and beyond 16 thousand times to about 2e-11 a time.
"""

import math

import numpy as np
from keras import ops

STEPS = 2**14
"""Of a turn. Up to 4 turns are then fewer than 2^16 steps, which is what `turned` does exactly."""

_TURN = (6.28125, 253 / 2**17, 2 * math.pi - 6.28125 - 253 / 2**17)
"""2 pi in parts; the first two have 8 bits, so that float32 holds 2^16 times each exactly."""


def turned(angle):
    """Return an angle less its whole turns, which are taken off in parts that do not round."""
    return _less(angle, _turns(angle))


def parts(angle):
    """Return ``(whole, rest)``: int32 steps of a turn, without its whole turns, and the rest.

    The gradient by the angle is that of the rest.

    Args:
        angle: float tensor; up to 4 turns, the parts are as exact as the angle.
    """
    turns = _turns(angle * STEPS)
    return ops.cast(turns, "int32") % STEPS, _less(angle * STEPS, turns) / STEPS


def constant_parts(angle, dtype):
    """Return `parts` of a float64 numpy array, the rest as a tensor of a dtype."""
    whole = np.rint(angle * STEPS / (2 * math.pi))
    rest = angle - whole * (2 * math.pi / STEPS)
    return ops.convert_to_tensor(np.mod(whole, STEPS), "int32"), ops.convert_to_tensor(rest, dtype)


def multiple(parts, times):
    """Return ``angle * times`` less whole turns of what `parts` made of an angle.

    Args:
        parts: pair from `parts` or `constant_parts`.
        times: int32 tensor >= 0, which broadcasts against the angle.
    """
    whole, rest = parts
    half = STEPS // 2
    steps = ((times % STEPS) * whole + half) % STEPS - half
    return ops.cast(steps, rest.dtype) * (2 * math.pi / STEPS) + ops.cast(times, rest.dtype) * rest


def _turns(angle):
    return ops.stop_gradient(ops.round(angle / (2 * math.pi)))


def _less(angle, turns):
    for part in _TURN:
        angle = angle - turns * part
    return angle
