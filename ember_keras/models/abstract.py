"""A model as shapes: what a training step and a call would read and write, with nothing drawn."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from ember_keras import backend
from ember_keras.models.forecaster import PinballLoss
from ember_keras.ops.counting import bytes_of


@dataclasses.dataclass(frozen=True)
class Abstract:
    """A copy of a model whose variables have shapes and no values.

    Args:
        model: keras.Model, built and compiled.
        x: KerasTensor, its input.
        y: KerasTensor, its targets.
    """

    model: keras.Model
    x: Any
    y: Any

    def weights(self) -> tuple[list[Any], list[Any]]:
        """The trainable variables, and the others, as specs."""
        model = self.model
        return _specs(model.trainable_variables), _specs(model.non_trainable_variables)

    def inputs(self, rows: int) -> Any:
        """The input with another number of rows."""
        return keras.KerasTensor((rows, *self.x.shape[1:]), dtype=self.x.dtype)

    def answer(self, trainable: Any, other: Any, x: Any) -> Any:
        """The model's output, as a function of its variables."""
        return self.model.stateless_call(trainable, other, x, training=False)[0]

    def state(self, trainable: Any, other: Any, rows: int, length: int) -> Any:
        """The state before the first position, as a function of the model's variables."""
        with self._with(trainable, other):
            return self.model.initial_state(rows, length)

    def step_memory(self) -> dict[str, int] | None:
        """The bytes of the step that `fit` runs, as the backend's compiler lays them out."""
        if not backend.tells_memory():
            return None
        model = self.model
        backend.build_unfilled(lambda: model.optimizer.build(model.trainable_variables))
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = tuple(_specs(group) for group in groups)

        def step(state: Any, x: Any, y: Any) -> Any:
            return model.train_step(state, (x, y, None))

        return backend.compiled_memory(step, state, self.x, self.y, donate=(0,))

    def call_memory(self) -> dict[str, int] | None:
        """The bytes of one call on the whole batch, likewise."""
        if not backend.tells_memory():
            return None
        return backend.compiled_memory(self.answer, *self.weights(), self.x)

    def slot_bytes(self) -> int:
        """The bytes that the optimizer keeps, out of what it keeps for small stand-ins."""
        config = keras.optimizers.serialize(self.model.optimizer)
        by_rank: dict[int, list[tuple[int, ...]]] = {}
        sizes = 0
        for variable in self.model.trainable_variables:
            shape = tuple(variable.shape)
            if len(shape) not in by_rank:
                by_rank[len(shape)] = _slots(keras.optimizers.deserialize(config), len(shape))
            width = bytes_of(keras.KerasTensor((1,), dtype=variable.dtype))
            for axes in by_rank[len(shape)]:
                sizes += width * math.prod(shape[axis] for axis in axes)
        return sizes

    def _with(self, trainable: Any, other: Any) -> keras.StatelessScope:
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        return keras.StatelessScope(zip(variables, [*trainable, *other], strict=True))


def abstract(
    model: Any, batch_size: int, length: int, width: int | None, optimizer: Any, loss: Any
) -> Abstract:
    """A copy of a model, its input and its targets, for `batch_size` rows of `length` positions."""
    copy = type(model).from_config(model.get_config())
    x = _input(model, batch_size, length, width)
    chosen = keras.optimizers.get(_copied(optimizer))

    def build() -> None:
        copy.build(x.shape)
        if model.built:  # Else it has not all of its layers yet.
            pairs = zip(copy._flatten_layers(), model._flatten_layers(), strict=True)
            for ours, theirs in pairs:
                ours.trainable = theirs.trainable

    backend.build_unfilled(build)
    answer = copy.compute_output_spec(x)
    chosen_loss = _loss(copy, loss, answer)
    copy.compile(chosen, chosen_loss)
    return Abstract(copy, x, _targets(chosen_loss, answer))


_PRIMES = (2, 3, 5, 7, 11, 13)


def _slots(optimizer: Any, rank: int) -> list[tuple[int, ...]]:
    """Which axes of a variable of some rank each slot of an optimizer has."""
    stand_in = keras.Variable(np.zeros(_PRIMES[:rank], "float32"))
    optimizer.build([stand_in])
    own = (optimizer.iterations, getattr(optimizer, "_learning_rate", None))
    slots = [v for v in optimizer.variables if not any(v is each for each in own)]
    return [tuple(_PRIMES.index(size) for size in v.shape if size in _PRIMES) for v in slots]


def _copied(optimizer: Any) -> Any:
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return keras.optimizers.serialize(optimizer)
    return optimizer


def _input(model: Any, rows: int, length: int, width: int | None) -> Any:
    if getattr(model, "vocab_size", None) is not None:
        return keras.KerasTensor((rows, length), dtype="int32")
    built = getattr(model, "_build_shapes_dict", None)
    if width is None and built:
        shape = next(iter(built.values()))
        width = shape[-1] if isinstance(shape, tuple | list) and len(shape) == 3 else None
    if width is None:
        raise ValueError(
            f"`estimate` received the model {model.name!r} of vectors, which is not built, and "
            "width=None, expected the number of features of its input. Pass width=..., or `build` "
            "the model first."
        )
    return keras.KerasTensor((rows, length, width), dtype="float32")


def _loss(model: Any, loss: Any, answer: Any) -> Any:
    if loss is not None:
        return keras.losses.get(loss)
    if hasattr(model, "quantiles"):
        return PinballLoss(model.quantiles)
    vocab_size = getattr(model, "vocab_size", None)
    tokens = vocab_size is not None and getattr(answer, "shape", ())[2:] == (vocab_size,)
    if tokens or hasattr(model, "num_classes"):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras.losses.MeanSquaredError()


def _targets(loss: Any, answer: Any) -> Any:
    name = getattr(loss, "name", None) or getattr(loss, "__name__", "")
    classes = "sparse" in str(name)

    def target(spec: Any) -> Any:
        shape = spec.shape[:-1] if classes or isinstance(loss, PinballLoss) else spec.shape
        return keras.KerasTensor(shape, dtype="int32" if classes else "float32")

    return keras.tree.map_structure(target, answer)


def _specs(variables: list[Any]) -> list[Any]:
    return [keras.KerasTensor(v.shape, dtype=v.dtype) for v in variables]
