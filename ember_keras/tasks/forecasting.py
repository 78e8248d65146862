"""Forecasting: quantiles of what comes next in a series."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras import registry
from ember_keras.models.forecaster import ForecastMetric, PinballLoss, checked_quantiles
from ember_keras.tasks.base import Split, Task, TaskData
from ember_keras.tasks.checks import at_least, fraction
from ember_keras.tasks.series_files import read_series, read_shipped
from ember_keras.tasks.series_targets import mean_and_scale

_QUANTILES: Any = (0.1, 0.5, 0.9)


@registry.tasks.register("forecasting")
class Forecasting(Task):
    """Windows of series, and the values that follow each, for a `forecaster`.

    The end of every series is held out: the last steps are the test part, those before them the
    validation part, and the rest is learnt from. A window belongs to the part in which all that it
    asks for lies; what it reads may lie before that part. The figure is the pinball loss, in the
    series' own unit where they have one channel.

    The series are the user's `files`, or those of a set that ships inside `aeon` (`name`), or else
    generated: two waves of random period, phase and level, with noise that remembers the last step.

    Args:
        name: str or None, a set of the UCR and UEA archives inside `aeon`, without its classes.
        files: str or None, the user's file of series, see
            `ember_keras.tasks.series_files.read_series`; of it `x` is used, `(N, steps)` or
            `(N, steps, channels)`.
        length: int, steps that a window reads.
        horizon: int, steps that it asks for.
        stride: int or None, steps between the starts of windows; None for `horizon`.
        quantiles: list of float in (0, 1), rising, at least one.
        validation: float, the fraction of each series that is watched; 0 for none.
        test: float above 0, the fraction of each series that is reported.
        normalize: bool, whether each channel is shifted and scaled to mean 0 and standard deviation
            1 over the steps that are learnt from.
        series: int, how many series are generated.
        steps: int, how long each of them is.

    Example:

    ```python
    import ember_keras as ek

    task = ek.registry.tasks.build("forecasting", length=24, horizon=4, series=8, steps=100)
    data = task.load(seed=0)
    print(data.train.x.shape, data.train.y.shape)  # (112, 24, 1) (112, 4, 1)
    ```
    """

    kind = "forecasting"
    main_metric = "pinball"
    higher_is_better = False

    def __init__(
        self,
        name: str | None = None,
        files: str | None = None,
        length: int = 64,
        horizon: int = 8,
        stride: int | None = None,
        quantiles: list[float] = _QUANTILES,
        validation: float = 0.1,
        test: float = 0.2,
        normalize: bool = True,
        series: int = 64,
        steps: int = 512,
    ):
        if name is not None and files is not None:
            raise ValueError(
                f"Received name={name!r} and files={files!r}; expected one of them. Leave one out."
            )
        self.name = name
        self.files = files
        self.length = at_least(1, length=length)
        self.horizon = at_least(1, horizon=horizon)
        self.stride = None if stride is None else at_least(1, stride=stride)
        self.quantiles = checked_quantiles("Forecasting", quantiles)
        self.validation = fraction(validation=validation)
        self.test = fraction(test=test)
        if not self.test or self.test + self.validation >= 1:
            raise ValueError(
                f"Received validation={validation} and test={test}; expected test above 0, and "
                "both together below 1. Use e.g. 0.1 and 0.2."
            )
        self.normalize = bool(normalize)
        self.series = at_least(1, series=series)
        self.steps = at_least(1, steps=steps)

    def load(self, seed: int) -> TaskData:
        """All splits; the seed makes the generated series, and changes no others."""
        at_least(0, seed=seed)
        x, source = self._series(seed)
        total = x.shape[1]
        count = {"validation": round(self.validation * total), "test": round(self.test * total)}
        ends = [total - count["test"] - count["validation"], total - count["test"], total]
        description = {
            "source": source,
            "kind": self.kind,
            "length": self.length,
            "horizon": self.horizon,
            "quantiles": list(self.quantiles),
            "channels": x.shape[2],
            "num_outputs": x.shape[2],
            **self._statistics(x[:, : ends[0]]),
        }
        x = ((x - description["mean"]) / description["scale"]).astype(np.float32)
        parts = {"train": (0, ends[0]), "validation": (ends[0], ends[1]), "test": (ends[1], total)}
        if not self.validation:
            del parts["validation"]
        splits = {part: self._windows(x, part, *span) for part, span in parts.items()}
        description |= {f"{part}_samples": len(split) for part, split in splits.items()}
        return TaskData(splits["train"], splits.get("validation"), splits["test"], description)

    def _series(self, seed: int) -> tuple[np.ndarray, str]:
        """The series `(N, T, F)`, and where they come from."""
        if self.files is not None:
            return _finite(read_series(self.files)["x"], self.files), str(self.files)
        if self.name is None:
            return self._generated(np.random.default_rng(seed)), "generated"
        found = read_shipped(self.name)
        return _finite(np.concatenate([found["x"], found["x_test"]]), self.name), self.name

    def _generated(self, rng: np.random.Generator) -> np.ndarray:
        shape = (self.series, 1)
        t = np.arange(self.steps)[None]
        found = rng.normal(0, 2, shape)
        for size in (1.0, 0.5):
            turns = t / np.exp(rng.uniform(np.log(6), np.log(48), shape))
            found = found + size * np.sin(2 * np.pi * (turns + rng.uniform(size=shape)))
        noise = rng.normal(0, 0.2, (self.series, self.steps))
        for step in range(1, self.steps):
            noise[:, step] += 0.7 * noise[:, step - 1]
        return (found + noise)[..., None]

    def _statistics(self, x: np.ndarray) -> dict[str, Any]:
        mean, scale = [0.0] * x.shape[2], [1.0] * x.shape[2]
        if self.normalize and x.size:
            mean, scale = mean_and_scale(x, np.ones_like(x, bool), (0, 1))
        own = len(mean) == 1 or not self.normalize
        unit = "the series' own" if own else "standard deviations of each channel"
        return {"mean": mean, "scale": scale, "unit": f"pinball loss, {unit}"}

    def _windows(self, x: np.ndarray, part: str, start: int, end: int) -> Split:
        """The windows whose targets lie from `start` to `end`, series after series."""
        at = np.arange(max(start, self.length), end - self.horizon + 1, self.stride or self.horizon)
        if not len(at):
            raise ValueError(
                f"Received series of {x.shape[1]} steps, of which the {part} part has "
                f"{end - start}; expected room for horizon={self.horizon} in it, after "
                f"length={self.length}. Give longer series, or lower `horizon` or `length`, or "
                "change `validation` and `test`."
            )
        before = x[:, at[:, None] + np.arange(-self.length, 0)]
        after = x[:, at[:, None] + np.arange(self.horizon)]
        return Split(_flat(before), _flat(after))

    def model_arguments(self, data: TaskData) -> dict[str, Any]:
        """`horizon`, `num_outputs` and `quantiles`."""
        return {key: data.description[key] for key in ("horizon", "num_outputs", "quantiles")}

    def output_shape(self, data: TaskData) -> tuple[int, ...]:
        """`(horizon, num_outputs, quantiles)`."""
        found = data.description
        return (found["horizon"], found["num_outputs"], len(found["quantiles"]))

    def compile_arguments(self) -> dict[str, Any]:
        """The pinball loss; the metrics are it, the median's error, and the coverage."""
        return {
            "loss": PinballLoss(self.quantiles),
            "weighted_metrics": [
                ForecastMetric("pinball", self.quantiles),
                ForecastMetric("absolute_error", self.quantiles),
                ForecastMetric("coverage", self.quantiles),
            ],
        }

    def summarize(self, evaluation: dict[str, float], data: TaskData) -> dict[str, float]:
        """The metrics, errors of one channel in its own unit."""
        figures = super().summarize(evaluation, data)
        for name in {"pinball", "absolute_error"} & set(figures):
            figures[name] *= _own_unit(data.description)
        return figures

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Pinball losses of the last value, and of it with the quantiles of past changes."""
        train, test = data.train, data.held_out
        targets = test.arguments()["y"]
        last = test.x[:, -1:, :, None]
        change = train.arguments()["y"] - train.x[:, -1:]
        changes = np.moveaxis(np.quantile(change, self.quantiles, axis=0), 0, -1)
        unit = _own_unit(data.description)
        found = {"last value": last, "last value and past changes": last + changes}
        return {name: unit * _pinball(targets, y, self.quantiles) for name, y in found.items()}

    def read(self, path: str, description: dict[str, Any]) -> Split:
        """The end of each series in a user's file; `y` is what followed, where it is there."""
        found = read_series(path)
        x = _finite(found["x"], str(path))
        if x.shape[2] != description["channels"] or x.shape[1] < description["length"]:
            raise ValueError(
                f"Received series of {x.shape[1]} steps and {x.shape[2]} channels in {path}; "
                f"expected at least {description['length']} steps, and {description['channels']} "
                "channels, as in the training data. Give such series."
            )
        x = (x[:, -description["length"] :] - description["mean"]) / description["scale"]
        x = x.astype(np.float32)
        if "y" not in found:
            return Split(x)
        y = found["y"]
        shape = (len(x), description["horizon"], description["channels"])
        if y.dtype.kind in "fiu" and y.ndim == 2 and shape[2] == 1:
            y = y[..., None]
        if y.dtype.kind not in "fiu" or y.shape != shape:
            raise ValueError(
                f"Received `y` of shape {y.shape} and type {y.dtype} in {path}; expected numbers "
                f"{shape}, what followed each series. Give them, or leave `y` out to predict."
            )
        y = (_finite(y, str(path)) - description["mean"]) / description["scale"]
        return Split(x, y.astype(np.float32))

    def decode(self, outputs: np.ndarray, description: dict[str, Any]) -> np.ndarray:
        """Quantiles `(N, horizon, channels, Q)` in the series' own unit."""
        scale, mean = (np.asarray(description[key])[:, None] for key in ("scale", "mean"))
        return np.asarray(outputs) * scale + mean


def _own_unit(description: dict[str, Any]) -> float:
    scale = description["scale"]
    return scale[0] if len(scale) == 1 else 1.0


def _flat(windows: np.ndarray) -> np.ndarray:
    """Windows `(N, W, T, F)` as samples `(N W, T, F)`."""
    return windows.reshape(-1, *windows.shape[2:])


def _pinball(y: np.ndarray, forecast: np.ndarray, quantiles: list[float]) -> float:
    error = y[..., None] - forecast
    q = np.asarray(quantiles)
    return float(np.maximum(q * error, (q - 1) * error).mean())


def _finite(x: np.ndarray, source: str) -> np.ndarray:
    """Refuses what is no float32 number."""
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(x.astype(np.float32))
    if bad.any():
        sample, step, channel = (int(at) for at in np.argwhere(bad)[0])
        raise ValueError(
            f"Received {x[sample, step, channel]} in {source} at sample {sample}, step {step}, "
            f"channel {channel}, and {int(bad.sum())} such values in all; expected finite float32 "
            "numbers. Mend the data."
        )
    return x.astype(np.float64)
