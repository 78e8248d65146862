"""Masked language modeling of bytes: restore those that were hidden."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras import registry
from ember_keras.tasks.base import Batches, Split, TaskData
from ember_keras.tasks.byte_text import ByteText
from ember_keras.tasks.checks import fraction

MASK = 256
"""The token that stands in the place of a hidden byte."""


@registry.tasks.register("masked_text")
class MaskedText(ByteText):
    """The text of `byte_text` with some bytes hidden, for a `masked_lm`.

    Of the bytes chosen at random, 80 % become token 256, 10 % another byte, and 10 % stay (Devlin
    et al. 2018, arXiv 1810.04805, section 3.1); the model must say what stood there, and is scored
    on them alone. In training they are chosen afresh at each step; in the held-out text once and
    for all, by the seed.

    Args:
        files: str or None. A text file or a folder, as in `byte_text`; None for the language
            reference.
        length: int, bytes in a window.
        holdout: float, the fraction of the text that is never trained on and reported as `test`.
        validation: float, the fraction at the end of the training text that is taken out of it to
            be watched during training; 0 for none.
        mask_rate: float in (0, 1), the fraction of bytes that are chosen.

    Example:

    ```python
    import ember_keras as ek

    task = ek.registry.tasks.build("masked_text", length=64)
    data = task.load(seed=0)
    x, y, weight = task.batches(data, batch_size=4, seed=0, steps=10)[0]  # (4, 64) each
    print(task.model_arguments(data))  # {'vocab_size': 257}
    ```
    """

    kind = "masked_modeling"
    main_metric = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        files: str | None = None,
        length: int = 256,
        holdout: float = 0.1,
        validation: float = 0.02,
        mask_rate: float = 0.15,
    ):
        super().__init__(files, length, holdout, validation, stride=length)
        self.mask_rate = fraction(mask_rate=mask_rate)
        if not self.mask_rate:
            raise ValueError("Received mask_rate=0; expected a fraction above 0, e.g. 0.15.")

    def load(self, seed: int = 0) -> TaskData:
        """The text in windows, with bytes hidden in the held-out ones by the seed."""
        data = super().load(seed)
        rng = np.random.default_rng([seed, 1])
        train = data.train.x
        validation, test = (
            None if part is None else self._hidden(part, rng)
            for part in (data.validation, data.test)
        )
        description = {**data.description, "vocab_size": MASK + 1, "unit": "fraction restored"}
        train_split = self._hidden(Split(train, train, np.ones(train.shape, np.float32)), rng)
        return TaskData(train_split, validation, test, description, data.extra)

    def _hidden(self, split: Split, rng: np.random.Generator) -> Split:
        weight = np.ones(split.x.shape, np.float32)
        if split.sample_weight is not None:
            weight = (split.sample_weight > 0).astype(np.float32)
        x, chosen = hide(split.x, self.mask_rate, rng)
        return Split(x, split.x, chosen * weight)

    def compile_arguments(self) -> dict[str, Any]:
        """The cross-entropy as loss, and as exact metrics `cross_entropy` and `accuracy`."""
        return super(ByteText, self).compile_arguments()

    def summarize(self, evaluation: dict[str, float], data: TaskData) -> dict[str, float]:
        """`accuracy` and `cross_entropy` at the hidden bytes."""
        return super(ByteText, self).summarize(evaluation, data)

    def batches(
        self, data: TaskData, *, batch_size: int, seed: int, steps: int | None = None
    ) -> Batches:
        """Windows at random places of the training text, with other bytes hidden each time.

        Args: as `Task.batches`; `steps=None` is about as many bytes as the text has.
        """
        plain = super().batches(data, batch_size=batch_size, seed=seed, steps=steps)
        return _Hiding(plain, self.mask_rate)

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Accuracy of always saying the commonest byte."""
        counts = np.bincount(data.train.y.ravel() if data.train.y is not None else [0])
        split = data.held_out
        if split.y is None or split.sample_weight is None:
            return {}
        right = (split.y == counts.argmax()) * split.sample_weight
        return {"commonest byte": float(right.sum() / split.sample_weight.sum())}

    def read(self, path: str, description: dict[str, Any] | None = None) -> Split:
        """A text file or folder in windows, with bytes hidden."""
        return self._hidden(super().read(path, description), np.random.default_rng(1))


def hide(x: np.ndarray, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bytes `(N, T)` with some hidden, and which were chosen."""
    chosen = rng.random(x.shape) < rate
    if not chosen.any():
        chosen[0, rng.integers(x.shape[1])] = True
    how = rng.random(x.shape)
    other = rng.integers(MASK, size=x.shape)
    hidden = np.where(how < 0.8, MASK, np.where(how < 0.9, other, x))
    return np.where(chosen, hidden, x).astype(np.int32), chosen.astype(np.float32)


class _Hiding(Batches):
    """The batches of another, with bytes hidden."""

    def __init__(self, plain: Batches, rate: float):
        self._plain = plain
        self._rate = rate
        super().__init__(
            {"rows": np.zeros(plain.rows, np.int8)},
            batch_size=plain.batch_size,
            seed=plain.seed,
            steps=plain.steps,
        )

    def draw(self, index: int) -> tuple[np.ndarray, ...]:
        self._plain.epoch = self.epoch
        windows = self._plain.draw(index)[0]
        rng = np.random.default_rng([self.seed, self.epoch, index, 2])
        hidden, chosen = hide(windows, self._rate, rng)
        return hidden, windows, chosen
