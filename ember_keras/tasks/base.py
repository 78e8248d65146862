"""What a task is: data with honest splits, and how its figures are read.

A pipeline drives every task the same way::

    data = task.load(seed)
    arguments = task.model_arguments(data)          # {"vocab_size": 256}
    model.compile(optimizer, **task.compile_arguments())
    batches = task.batches(data, batch_size=16, seed=seed)
    model.fit(batches, shuffle=False, callbacks=[batches.callback], epochs=10)
    evaluation = model.evaluate(**data.held_out.arguments(), return_dict=True)
    figures = task.summarize(evaluation, data)

`data.held_out` is what is reported; `data.validation` is what may be watched, stopped on, tuned on.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Literal

import keras
import numpy as np

from ember_keras.tasks.batches import Batches

Kind = Literal[
    "language_modeling",
    "masked_modeling",
    "reconstruction",
    "token_classification",
    "classification",
    "regression",
    "forecasting",
]
AT_POSITIONS = ("language_modeling", "masked_modeling", "reconstruction", "token_classification")
"""The kinds that have an answer at every position."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Arrays of one part of the data, rows first.

    Args:
        x: array, `(N, T)` int32 tokens or `(N, T, F)` float32 series.
        y: array or None. `(N, T)` int32 next tokens, `(N,)` int32 classes, `(N, K)` float32
            targets or `(N, H, K)` float32 values that follow; None for a file without targets,
            which can only be predicted on.
        sample_weight: array or None. `(N, T)` float32, 0 where a position is not scored.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    sample_weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def arguments(self) -> dict[str, Any]:
        """The split as keyword arguments of `fit` and `evaluate`.

        Raises:
            ValueError: the split has no targets.
        """
        if self.y is None:
            raise ValueError(
                f"Received {len(self)} samples without targets; expected `y` beside `x` to score "
                "or train on. Add the targets to the file, or use `predict`."
            )
        return {"x": self.x, "y": self.y, "sample_weight": self.sample_weight}

    def validation_data(self) -> tuple[np.ndarray, ...]:
        """The split as `fit(validation_data=...)` takes it."""
        return tuple(part for part in self.arguments().values() if part is not None)


@dataclasses.dataclass(frozen=True)
class TaskData:
    """What `Task.load` returns.

    Args:
        train: Split, what the model learns from.
        validation: Split or None, what may be watched, stopped on or tuned on during training.
        test: Split or None, never looked at before the end.
        description: dict of plain data (JSON can hold it): sizes, units, class names, and what
            `Task.read` and `Task.decode` need to treat a new file as the training data was treated.
        extra: dict, what the task itself needs again, e.g. the text behind the windows.
    """

    train: Split
    validation: Split | None
    test: Split | None
    description: dict[str, Any]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def held_out(self) -> Split:
        """The split whose figures are reported: `test` where there is one, else `validation`."""
        found = self.test if self.test is not None else self.validation
        if found is None:
            raise ValueError(
                "Received data with neither a test nor a validation split; expected one to report "
                "figures on. Set the task's `validation`, e.g. to 0.2, or give it test data."
            )
        return found


class Task:
    """The base of every task: a recipe for data, a pure function of its arguments and a seed.

    Making a task opens nothing; only `load`, `read` and `baselines` touch files. A subclass keeps
    each argument of its `__init__` as an attribute of the same name.

    Attributes:
        kind: "language_modeling" (`(B, T)` tokens in, `(B, T, vocab_size)` logits of the next ones
            out), "masked_modeling" and "reconstruction" (the same, of the tokens themselves),
            "token_classification" (`(B, T, num_classes)` logits out), "classification"
            (`(B, num_classes)` logits out), "regression" (`(B, num_outputs)` out) or "forecasting"
            (`(B, horizon, num_outputs, quantiles)` out).
        main_metric: the figure of `summarize` by which models of this task compare.
        higher_is_better: which way `main_metric` goes.
    """

    kind: Kind
    main_metric: str
    higher_is_better: bool

    def load(self, seed: int) -> TaskData:
        """All splits; the same arguments and seed give the same bytes."""
        raise NotImplementedError

    def model_arguments(self, data: TaskData) -> dict[str, Any]:
        """What the data says about the model, such as `vocab_size` or `num_classes`.

        A pipeline passes these where the configuration leaves them out, and refuses a configuration
        that contradicts them.
        """
        key = {
            "language_modeling": "vocab_size",
            "masked_modeling": "vocab_size",
            "reconstruction": "vocab_size",
            "token_classification": "num_classes",
            "classification": "num_classes",
            "regression": "num_outputs",
        }[self.kind]
        return {key: data.description[key]}

    def output_shape(self, data: TaskData) -> tuple[int, ...]:
        """The shape of what a model gives for one sample."""
        size = next(iter(self.model_arguments(data).values()))
        return (data.train.x.shape[1], size) if self.kind in AT_POSITIONS else (size,)

    def compile_arguments(self) -> dict[str, Any]:
        """`loss` and metrics for `compile`, as new Keras objects.

        The loss averages over what is scored (`mean_with_sample_weight`); the metrics are exact
        over uneven batches too, because they carry their own total weight.
        """
        if self.kind == "regression":
            return {
                "loss": keras.losses.MeanSquaredError(),
                "weighted_metrics": [
                    keras.metrics.MeanSquaredError(name="mean_squared_error"),
                    keras.metrics.MeanAbsoluteError(name="mean_absolute_error"),
                ],
            }
        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
            "weighted_metrics": [
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
                keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            ],
        }

    def batches(
        self, data: TaskData, *, batch_size: int, seed: int, steps: int | None = None
    ) -> Batches:
        """Training batches, a fresh order each epoch; see `Batches`.

        Args:
            data: TaskData, from `load`.
            batch_size: int, rows a batch.
            seed: int. Batch `i` of epoch `e` is a pure function of `(seed, e, i)`.
            steps: int or None, batches an epoch; None for one pass over the training data.
        """
        return Batches(data.train.arguments(), batch_size=batch_size, seed=seed, steps=steps)

    def summarize(self, evaluation: dict[str, float], data: TaskData) -> dict[str, float]:
        """The figures to report, out of what `evaluate(..., return_dict=True)` returned."""
        del data
        return {key: float(value) for key, value in evaluation.items() if key != "loss"}

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Figures of simple methods on `data.held_out`, in units of `main_metric`."""
        del data
        return {}

    def read(self, path: str, description: dict[str, Any]) -> Split:
        """A user's file as a split, treated as the training data was.

        Args:
            path: str, the file.
            description: dict, `TaskData.description` of the data the model was trained on.
        """
        del path, description
        raise ValueError(
            f"Received a file for `{type(self).__name__}`, which generates its data and reads no "
            "files; expected none. Leave the file out to use the task's own data."
        )

    def decode(self, outputs: np.ndarray, description: dict[str, Any]) -> np.ndarray:
        """Model outputs in the user's own terms: next tokens, class names, or target units."""
        del description
        outputs = np.asarray(outputs)
        return outputs if self.kind == "regression" else outputs.argmax(axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this task again."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Task:
        """A task from `get_config`'s dict."""
        return cls(**config)
