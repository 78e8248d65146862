"""How tensors of a checkpoint and variables of a layer are made of each other.

Each rule names its tensors and its variables, separated by spaces, and goes both ways. A linear map
of PyTorch is `(out, in)` and a kernel here `(in, out)`; the last tap of a convolution of PyTorch is
the position itself, and the first tap of one here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ember_keras.models.pretrained.checkpoint import Checkpoint

Shape = tuple[int, ...]
Piece = tuple[Any, np.ndarray]
"""An index of a variable, and the values that are there."""


def _one_after_another(checkpoint: Checkpoint, names: list[str]) -> Iterator[Piece]:
    """The rows of one tensor after those of another; some are read at a time."""
    before = 0
    for name in names:
        for rows, values in checkpoint.rows(name):
            yield slice(before + rows.start, before + rows.stop), values
        before += checkpoint.tensors[name].shape[0]


def _side_by_side(checkpoint: Checkpoint, names: list[str]) -> Iterator[Piece]:
    """The same rows as columns."""
    for rows, values in _one_after_another(checkpoint, names):
        yield (slice(None), rows), values.T


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor that is one variable as it is; the other rules say what they do instead.

    Args:
        tensors: str, the names of the tensors after the prefix of their layer.
        variables: str, the attributes of the block that hold the variables.
    """

    tensors: str
    variables: str

    def names(self, block: Any) -> list[str]:
        """The names of the tensors."""
        return self.tensors.split()

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        """The shapes of the tensors, from those of the variables."""
        return shapes

    def pieces(
        self, block: Any, checkpoint: Checkpoint, names: list[str]
    ) -> Iterable[Iterable[Piece]]:
        """For each variable the pieces that it is made of, from the tensors of these names."""
        return [_one_after_another(checkpoint, names)]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        """The tensors."""
        return values


class Matrix(Rule):
    """The kernel of a linear map: transposed."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return [shape[::-1] for shape in shapes]

    def pieces(
        self, block: Any, checkpoint: Checkpoint, names: list[str]
    ) -> Iterable[Iterable[Piece]]:
        return [_side_by_side(checkpoint, names)]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return [value.T for value in values]


class Whole(Rule):
    """Tensors that are read whole and then put in their places: at most one map of a layer."""

    def pieces(
        self, block: Any, checkpoint: Checkpoint, names: list[str]
    ) -> Iterable[Iterable[Piece]]:
        values = self.read(block, [checkpoint.read(name) for name in names])
        return [[(..., value)] for value in values]

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        """The values of the variables."""
        return tensors


class Channels(Whole):
    """A number a channel: `(1, 1, D)` as `(D,)`."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return [(1, 1, *shape) for shape in shapes]

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [tensor.reshape(-1) for tensor in tensors]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return [value.reshape(1, 1, -1) for value in values]


class Taps(Whole):
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

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return np.split(values[0], len(self.tensors.split()))


class SideBySide(EndToEnd):
    """Several linear maps of one size whose kernels are one, side by side."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return super().shapes(block, [shapes[0][::-1]])

    def pieces(
        self, block: Any, checkpoint: Checkpoint, names: list[str]
    ) -> Iterable[Iterable[Piece]]:
        return [_side_by_side(checkpoint, names)]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return super().write(block, [values[0].T])


class AlongLast(Whole):
    """Several arrays of one shape that are one, joined along the last axis."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        count = len(self.tensors.split())
        return [(*shapes[0][:-1], shapes[0][-1] // count)] * count

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate(tensors, axis=-1)]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return np.split(values[0], len(self.tensors.split()), axis=-1)


class Unsaved(Rule):
    """A variable that no tensor holds, since it says how a layer was used: it starts afresh.

    Its `tensors` are none, the empty string.
    """

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return []

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return []


class Experts(Rule):
    """The linear maps of all experts of a mixture, in one stack `(E, in, out)`.

    Each name has `{}` in the place of the expert's number. Where there are several names, the maps
    of an expert stand side by side.
    """

    def names(self, block: Any) -> list[str]:
        (stack,) = block.mixer.stacks
        return [name.format(i) for i in range(stack.count) for name in self.tensors.split()]

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        ((experts, inputs, outputs),) = shapes
        count = len(self.tensors.split())
        return [(outputs // count, inputs)] * (experts * count)

    def pieces(
        self, block: Any, checkpoint: Checkpoint, names: list[str]
    ) -> Iterable[Iterable[Piece]]:
        return [self._stacked(checkpoint, names)]

    def _stacked(self, checkpoint: Checkpoint, names: list[str]) -> Iterator[Piece]:
        count = len(self.tensors.split())
        for i in range(0, len(names), count):
            for index, values in _side_by_side(checkpoint, names[i : i + count]):
                yield (i // count, *index), values

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        count = len(self.tensors.split())
        return [part for expert in values[0] for part in np.split(expert.T, count)]


class GroupRows(Whole):
    """A vector whose parts are the rows of a matrix, one for each `num_groups` of the mixer."""

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return [(shapes[0][0] * shapes[0][1],)]

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        return [tensors[0].reshape(block.mixer.num_groups, -1)]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        return [values[0].reshape(-1)]


@dataclasses.dataclass(frozen=True)
class Interleaved(Whole):
    """A map whose rows stand a head at a time, some for each of several parts.

    Here each part is whole, and a variable is one part, or several side by side.

    Args:
        parts: callable, from the mixer to how many heads there are, and the rows of each part of
            one head.
        takes: tuple of int, how many parts each variable has.
    """

    parts: Callable[[Any], tuple[int, list[int]]] = lambda mixer: (1, [])
    takes: tuple[int, ...] = (1, 1)

    def shapes(self, block: Any, shapes: list[Shape]) -> list[Shape]:
        return [(sum(shape[-1] for shape in shapes), *shapes[0][:-1])]

    def read(self, block: Any, tensors: list[np.ndarray]) -> list[np.ndarray]:
        heads, sizes = self.parts(block.mixer)
        (tensor,) = tensors
        rows = tensor.reshape(heads, sum(sizes), *tensor.shape[1:])
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        parts = [part.reshape(-1, *tensor.shape[1:]) for part in parts]
        ends = np.cumsum(self.takes)
        return [
            np.concatenate(parts[end - count : end]).T
            for end, count in zip(ends, self.takes, strict=True)
        ]

    def write(self, block: Any, values: list[np.ndarray]) -> list[np.ndarray]:
        heads, sizes = self.parts(block.mixer)
        rows = np.concatenate([value.T for value in values])
        parts = np.split(rows, np.cumsum([heads * size for size in sizes])[:-1])
        parts = [part.reshape(heads, -1, *rows.shape[1:]) for part in parts]
        return [np.concatenate(parts, axis=1).reshape(rows.shape)]
