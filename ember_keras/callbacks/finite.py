"""A stop at the first loss that is no number."""

from __future__ import annotations

import math

import keras


class StopOnNaN(keras.callbacks.Callback):
    """Raises `FloatingPointError` at the first loss, or held-out measure, that is NaN or infinite.

    Put it before callbacks that save, so that they never see the broken epoch.

    Example:

    ```python
    import keras
    import numpy as np
    from ember_keras.callbacks import StopOnNaN

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.full((8, 3), np.nan, "float32")
    try:
        model.fit(x, x[:, :1], verbose=0, callbacks=[StopOnNaN()])
    except FloatingPointError as error:
        print(error)
    ```
    """

    def __init__(self):
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs, f"batch {batch + 1} of epoch {self._epoch + 1}", ("loss",))

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, f"the end of epoch {epoch + 1}", tuple(logs or ()))

    def _check(self, logs, where: str, keys: tuple[str, ...]) -> None:
        for key in keys:
            value = float((logs or {}).get(key, 0.0))
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"`{key}` was {value} at {where}; expected a finite number. Lower the learning "
                    "rate, clip the gradients, or look for NaN and huge values in the data."
                )
