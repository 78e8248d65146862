"""How tensors of a checkpoint and variables of a layer are made of each other.

Each rule names its tensors and its variables, separated by spaces, and goes both ways. A linear map
of PyTorch is `(out, in)` and a kernel here `(in, out)`; the last tap of a convolution of PyTorch is
the position itself, and the first tap of one here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor that is one variable as it is; the other rules say what they do instead.

    Args:
        tensors: str, the names of the tensors after the prefix of their layer.
        variables: str, the attributes of the block that hold the variables.
    """

    tensors: str
    variables: str

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        """The shapes of the tensors, from those of the variables."""
        return shapes

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        """The values of the variables."""
        return tensors

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        """The tensors."""
        return values


class Matrix(Rule):
    """The kernel of a linear map: transposed."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return [shape[::-1] for shape in shapes]

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [tensor.T for tensor in tensors]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return [value.T for value in values]


class Taps(Rule):
    """The kernel of a depthwise convolution: `(D, 1, taps)` as `(taps, D)`."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        ((taps, width),) = shapes
        return [(width, 1, taps)]

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [tensors[0][:, 0, ::-1].T]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return [values[0].T[:, None, ::-1]]


class EndToEnd(Rule):
    """Several vectors of one size that are one vector, one after another."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        count = len(self.tensors.split())
        return [(shapes[0][0] // count, *shapes[0][1:])] * count

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate(tensors)]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return np.split(values[0], len(self.tensors.split()))


class SideBySide(EndToEnd):
    """Several linear maps of one size whose kernels are one, side by side."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return super().shapes(block, [shapes[0][::-1]])

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate(tensors).T]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return super().write(block, [values[0].T])
