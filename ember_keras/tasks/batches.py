"""Training batches that any backend's `fit` takes, and that a resumed run draws again exactly."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ember_keras.tasks.checks import at_least


class Batches(keras.utils.PyDataset):
    """Batches of arrays in a fresh order each epoch.

    Batch `i` of epoch `e` is a pure function of `(seed, e, i)`, so that a run which is stopped and
    resumed with `fit(initial_epoch=e)` sees what an unbroken run sees. Keras does not tell a
    dataset which epoch it is in; the dataset's own `callback` does, and `fit` must be told to leave
    the order alone:

    ```python
    import numpy as np
    from ember_keras.tasks import Batches

    x, y = np.zeros((50, 8, 1), "float32"), np.zeros((50,), "int32")
    batches = Batches({"x": x, "y": y}, batch_size=16, seed=0)
    # model.fit(batches, shuffle=False, callbacks=[batches.callback], epochs=10)
    print(len(batches), batches[0][0].shape)  # 3 (16, 8, 1)
    ```

    Every batch has `batch_size` rows (all rows where there are fewer), so that a compiled step is
    compiled once; the rows that do not fill a batch at the end of a pass are other ones each epoch.

    Args:
        arrays: dict of `x`, `y` and optionally `sample_weight` (None is left out), rows first.
        batch_size: int, rows a batch.
        seed: int.
        steps: int or None, batches an epoch; None for one pass. An epoch of several passes shuffles
            each of them.
        epoch: int, the epoch whose batches are given.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray | None],
        *,
        batch_size: int,
        seed: int,
        steps: int | None = None,
        epoch: int = 0,
    ):
        super().__init__(workers=1, use_multiprocessing=False)
        self.arrays = {key: value for key, value in arrays.items() if value is not None}
        self.rows = self.count_rows()
        self.batch_size = min(at_least(1, batch_size=batch_size), self.rows)
        self.seed = at_least(0, seed=seed)
        self.steps = self.pass_length() if steps is None else at_least(1, steps=steps)
        self.epoch = at_least(0, epoch=epoch)
        self.callback = _TellEpoch(self)
        self._begun_since_told = 0
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def count_rows(self) -> int:
        """How many rows there are to draw from."""
        counts = {key: len(value) for key, value in self.arrays.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ValueError(
                f"Received arrays of {counts} rows; expected the same number, at least 1, in each. "
                "Give one target, and one weight where there are weights, for every sample."
            )
        return next(iter(counts.values()))

    def pass_length(self) -> int:
        """The number of full batches in one pass."""
        return self.rows // self.batch_size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if not 0 <= index < self.steps:
            raise IndexError(f"Received batch {index}; expected 0 to {self.steps - 1}.")
        return self.draw(index)

    def draw(self, index: int) -> tuple[np.ndarray, ...]:
        """Batch `index` of the current epoch: `(x, y)` or `(x, y, sample_weight)`."""
        number, at = divmod(index, self.pass_length())
        key, order = (self.epoch, number), self._order  # Read once: Keras may draw in a thread.
        if order is None or order[0] != key:
            order = self._order = (key, self.rng(number).permutation(self.rows))
        rows = order[1][at * self.batch_size : (at + 1) * self.batch_size]
        return tuple(array[rows] for array in self.arrays.values())

    def rng(self, number: int) -> np.random.Generator:
        """The generator of draw `number` in the current epoch."""
        return np.random.default_rng([self.seed, self.epoch, number])

    def on_epoch_begin(self) -> None:
        """Called by Keras at each epoch, and once more before the first for an unbuilt model."""
        self._begun_since_told += 1
        if self._begun_since_told > 2:
            raise ValueError(
                "Received a third epoch with the batches of the first; expected `fit` to say which "
                "epoch it is in. Pass `callbacks=[batches.callback]` and `shuffle=False` to `fit`."
            )

    def get_state(self) -> dict[str, Any]:
        """What a resumed run needs to draw the same batches."""
        return {"seed": self.seed, "epoch": self.epoch}


class _TellEpoch(keras.callbacks.Callback):
    """Tells a `Batches` which epoch `fit` is in."""

    def __init__(self, batches: Batches):
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._batches.epoch = epoch
        self._batches._begun_since_told = 0
