"""A figure of what the routers of a model do while it trains."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ember_keras import backend
from ember_keras.layers.moe.mixture import MixtureOfExperts
from ember_keras.models.saving.writing import write_whole

COLUMNS = 240
"""Columns of a picture; more steps than that are means of neighbours."""


class RouterReport(keras.callbacks.Callback):
    """Draws how much each expert of each mixture is used over training, and how sure routers are.

    For every mixture of experts in the model: a picture of each expert's load against the steps, 1
    where it has its even share, and below it the entropy of the router's probabilities, as a part
    of the largest there can be, and the fraction of tokens that was dropped. The figure is written
    at the end of each epoch. It needs matplotlib, the extra `plot`.

    Args:
        path: str or path. The file of the figure, such as `routers.png` or `routers.svg`.
        every: int. Of how many training steps one is looked at. On jax and mlx a look takes the
            model's variables out of the training loop and puts them back.

    Example:

    ```python
    import tempfile
    import numpy as np
    import ember_keras as ek

    model = ek.models.SequenceRegressor(width=8, blocks=["attention", "moe"])
    model.compile("adam", "mse")
    x, y = np.ones((8, 6, 1), "float32"), np.ones((8, 1), "float32")
    report = ek.callbacks.RouterReport(tempfile.mkdtemp() + "/routers.png")
    if ek.backend.capabilities().trains:
        model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[report])
        print({name: use.shape for name, use in report.loads().items()})
    ```
    """

    def __init__(self, path: Any, every: int = 10):
        super().__init__()
        self.path = Path(os.fspath(path))
        self.every = every
        if self.path.suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(
                f"`RouterReport` received path={str(path)!r}, expected a name that ends in .png, "
                ".svg or .pdf."
            )
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(
                f"`RouterReport` received every={every!r}, expected an integer of at least 1."
            )
        _figure()
        self._steps: list[int] = []
        self._seen: dict[str, list[np.ndarray]] = {}
        self._step = 0

    def loads(self) -> dict[str, np.ndarray]:
        """The share of the work of each expert: `(steps, E)` for each mixture, by its path."""
        return {name: np.stack(use)[:, :-2] for name, use in self._seen.items()}

    def on_train_begin(self, logs=None):
        if not self._mixtures():
            raise ValueError(
                "`RouterReport` received a model without a `MixtureOfExperts`, expected at least "
                "one. Leave the callback out."
            )

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if (self._step - 1) % self.every == 0:
            self._steps.append(self._step)
            for layer in self._mixtures():
                self._seen.setdefault(layer.path, []).append(backend.to_numpy(layer.use))

    def on_epoch_end(self, epoch, logs=None):
        self._write()

    def _mixtures(self) -> list[MixtureOfExperts]:
        layers = self.model._flatten_layers()
        found = {id(layer): layer for layer in layers if isinstance(layer, MixtureOfExperts)}
        # A layer that is not built yet has no path.
        return sorted(found.values(), key=lambda layer: _in_order(layer.path or ""))

    def _write(self) -> None:
        figure = _figure()(figsize=(8, 3.4 * len(self._seen)), layout="constrained")
        rows = len(self._seen)
        axes = figure.subplots(2 * rows, 1, squeeze=False, height_ratios=[2, 1] * rows)
        for i, (name, use) in enumerate(self._seen.items()):
            above, below = axes[2 * i, 0], axes[2 * i + 1, 0]
            _draw(above, below, name, np.array(self._steps), np.stack(use))
        drawn = io.BytesIO()
        figure.savefig(drawn, format=self.path.suffix[1:], dpi=120)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            self.path, self.path.suffix, True, lambda file: file.write_bytes(drawn.getvalue())
        )


def _in_order(path: str) -> list[Any]:
    """A key that sorts `block_10` behind `block_9`."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path)
    ]


def _draw(above: Any, below: Any, name: str, steps: np.ndarray, use: np.ndarray) -> None:
    steps, use = _narrow(steps, use)
    count = use.shape[1] - 2
    half = (steps[1] - steps[0]) / 2 if len(steps) > 1 else 0.5
    edges = np.append(steps - half, steps[-1] + half)
    load = count * use[:, :-2].T
    picture = above.pcolormesh(
        edges, np.arange(count + 1) - 0.5, load, cmap="viridis", vmin=0.0, vmax=max(2.0, load.max())
    )
    bar = {"ax": [above, below], "shrink": 0.6, "anchor": (0.0, 1.0)}  # The two stay in line.
    above.figure.colorbar(picture, label="load, 1 is even", **bar)
    above.set(title=name, ylabel="expert", xticklabels=[])
    mark = "o" if len(steps) == 1 else None  # A line of one point is not seen.
    entropy = use[:, -1] / max(np.log(count), 1e-9)
    below.plot(steps, entropy, marker=mark, label="entropy, of the largest")
    below.plot(steps, use[:, -2], marker=mark, label="dropped")
    below.set(xlabel="step", xlim=(edges[0], edges[-1]), ylim=(-0.03, 1.03))
    below.legend(loc="center right")


def _narrow(steps: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `COLUMNS` steps: the means of neighbours."""
    if len(steps) <= COLUMNS:
        return steps.astype(float), use
    parts = np.array_split(np.arange(len(steps)), COLUMNS)
    return np.array([steps[p].mean() for p in parts]), np.stack([use[p].mean(0) for p in parts])


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`RouterReport` needs matplotlib, which is not installed. Install the extra `plot`: "
            "pip install 'ember-keras[plot]'."
        ) from error
    return Figure
