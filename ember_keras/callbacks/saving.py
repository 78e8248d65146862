"""Saving after every epoch, so that what was finished is never lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from ember_keras import backend


class SaveEveryEpoch(keras.callbacks.Callback):
    """Saves the model after each epoch, atomically: the file holds one whole epoch at any moment.

    An epoch that ended with a weight that is NaN or infinite is not saved.

    Args:
        path: str or Path. A `.keras` file; its folder exists.
        monitor: str or None. The logged measure whose best epoch stays; None keeps the last epoch.
        mode: `"min"` or `"max"`. Which way `monitor` is better.
        save: callable `save(model, path)`, or None for `ember_keras.save_model`.

    Attributes:
        epoch: int. The epoch that the file holds, counted from 1; 0 before the first.

    Example:

    ```python
    import tempfile
    import keras
    import numpy as np
    from ember_keras.callbacks import SaveEveryEpoch

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.ones((8, 3), "float32")
    with tempfile.TemporaryDirectory() as folder:
        saved = SaveEveryEpoch(f"{folder}/model.keras")
        model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[saved])
        print(saved.epoch)  # 2
    ```
    """

    def __init__(
        self,
        path: str | Path,
        monitor: str | None = None,
        mode: str = "min",
        save: Callable[[keras.Model, Path], None] | None = None,
    ):
        super().__init__()
        self.path = Path(path)
        if self.path.suffix != ".keras":
            raise ValueError(
                f"Received the path {str(path)!r}; expected a name ending in '.keras'."
            )
        if mode not in ("min", "max"):
            raise ValueError(f"Received mode={mode!r}; expected 'min' or 'max'.")
        self.monitor = monitor
        self.mode = mode
        self.epoch = 0
        self._save = save
        self._best: float | None = None

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        if self._is_better(logs or {}) and _is_finite(model):
            self._write(model)
            self.epoch = epoch + 1

    def _is_better(self, logs: dict[str, float]) -> bool:
        if self.monitor is None:
            return True
        if self.monitor not in logs:
            raise ValueError(
                f"Received monitor={self.monitor!r}; expected a measure that `fit` logs: "
                f"{', '.join(logs)}."
            )
        value = float(logs[self.monitor])
        better = self._best is None or (
            value < self._best if self.mode == "min" else value > self._best
        )
        if better:
            self._best = value
        return better

    def _write(self, model: keras.Model) -> None:
        if self._save is None:
            from ember_keras.models.saving import save_model

            self._save = save_model
        self._save(model, self.path)


def _is_finite(model: keras.Model) -> bool:
    return all(
        np.isfinite(backend.to_numpy(weight.value)).all()
        for weight in model.weights
        if weight.dtype in ("float16", "float32", "float64")
    )
