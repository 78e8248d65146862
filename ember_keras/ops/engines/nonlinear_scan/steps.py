"""One pass of the time loop: the cell, and what padding, segments and truncation do around it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops, tree


@dataclasses.dataclass(frozen=True)
class Step:
    """A function ``(inputs, state, weights) -> (y, state)`` of `count` positions.

    It is equal to another one of the same cell and count, so that what was compiled of one serves
    the other. `inputs` is a dict: ``x``, and where there is something to say ``mask``, ``starts``
    and ``cut``. Its leaves are ``(B, ...)`` where `count` is 1, else ``(B, count, ...)``, and so
    are those of ``y``. `weights` is a dict: ``cell``, and ``fresh`` where segments start.
    """

    cell: Callable[..., Any]
    count: int = 1

    def __call__(self, inputs, state, weights):
        if self.count == 1:
            return self._one(inputs, state, weights)
        ys = []
        for at in range(self.count):
            here = tree.map_structure(lambda leaf, at=at: leaf[:, at], inputs)
            y, state = self._one(here, state, weights)
            ys.append(y)
        return tree.map_structure(lambda *each: ops.stack(each, axis=1), *ys), state

    def _one(self, inputs, state, weights):
        if "cut" in inputs:
            state = _choose(inputs["cut"], tree.map_structure(ops.stop_gradient, state), state)
        if "starts" in inputs:
            state = _choose(inputs["starts"], weights["fresh"], state)
        given = (inputs["x"], state, *([weights["cell"]] if "cell" in weights else []))
        y, new = self.cell(*given)
        _check(state, new)
        if "mask" in inputs:
            new = _choose(inputs["mask"], new, state)
            y = tree.map_structure(lambda leaf: spread(inputs["mask"], leaf, 0.0), y)
        return y, new


def spread(flags, x, other):
    """Return `x` where the flags of its leading axes are True, else `other`."""
    rank = len(flags.shape)
    flags = ops.reshape(flags, (-1, *flags.shape[1:]) + (1,) * (len(x.shape) - rank))
    return ops.where(flags, x, ops.cast(other, x.dtype))


def _choose(flags, where, otherwise):
    return tree.map_structure(lambda a, b: spread(flags, a, b), where, otherwise)


def _check(before, after):
    old = [tuple(leaf.shape) for leaf in tree.flatten(before)]
    new = [tuple(leaf.shape) for leaf in tree.flatten(after)]
    if old != new:
        raise ValueError(
            f"Received a cell that makes a state of shapes {new} out of one of shapes {old}; "
            "expected a state of the same structure and shapes. Return the new state as the second "
            "of two results, with what it had before."
        )
