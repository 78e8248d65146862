"""Classification and regression of whole time series."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ember_keras import registry
from ember_keras.tasks.base import Split, Task, TaskData
from ember_keras.tasks.checks import at_least, fraction
from ember_keras.tasks.series_files import read_series, read_shipped
from ember_keras.tasks.series_targets import (
    in_order,
    labels,
    mean_and_scale,
    nearest_rows,
    real_targets,
)


@registry.tasks.register("time_series")
class TimeSeries(Task):
    """Whole series to a class or a number: UCR/UEA sets inside `aeon`, or the user's own file.

    The shipped sets (GunPoint, OSULeaf, ACSF1, BasicMotions, ... from the UCR and UEA archives,
    timeseriesclassification.com) keep their official train and test part. They are read out of the
    installed package `aeon`; nothing is downloaded. A user's file is `.npz`, `.csv` or `.ts`, see
    `ember_keras.tasks.series_files.read_series`; its test part is `x_test` and `y_test` of an
    `.npz`, or `test_files`. Where there is neither, set `validation`.

    Classes are numbered 0 to C-1 in sorted order, as numbers where all labels are numbers.

    Args:
        name: str, a set that ships inside `aeon`; not used where `files` is given.
        files: str or None, the user's file of series.
        test_files: str or None, the user's file that is only scored.
        target: "classification" or "regression".
        validation: float, the fraction of the training samples that is held out to be watched,
            drawn with the seed, class by class; 0 for none.
        normalize: bool, whether each channel, and a regression's target, is shifted and scaled to
            mean 0 and standard deviation 1 over the training samples.
        missing: "refuse" a NaN, saying where it is, or put "zero" in its place, after normalizing.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    rng = np.random.default_rng(0)
    np.savez("waves.npz", x=rng.normal(size=(20, 50, 2)), y=np.arange(20) % 3)
    task = ek.registry.tasks.build("time_series", files="waves.npz", validation=0.25)
    data = task.load(seed=0)
    print(data.train.x.shape, task.model_arguments(data))  # (15, 50, 2) {'num_classes': 3}
    ```
    """

    def __init__(
        self,
        name: str = "GunPoint",
        files: str | None = None,
        test_files: str | None = None,
        target: Literal["classification", "regression"] = "classification",
        validation: float = 0.0,
        normalize: bool = True,
        missing: Literal["refuse", "zero"] = "refuse",
    ):
        self.name = name
        self.files = files
        self.test_files = test_files
        if test_files is not None and files is None:
            raise ValueError(
                f"Received test_files={test_files!r} without `files`; expected both, as a shipped "
                "set has its own test part. Give `files` too."
            )
        self.target = _one_of(("classification", "regression"), target=target)
        self.kind = self.target
        self.higher_is_better = self.target == "classification"
        self.main_metric = "accuracy" if self.higher_is_better else "mean_absolute_error"
        self.validation = fraction(validation=validation)
        self.normalize = bool(normalize)
        self.missing = _one_of(("refuse", "zero"), missing=missing)

    def load(self, seed: int) -> TaskData:
        """Reads the file or the shipped set; the seed chooses the validation samples."""
        at_least(0, seed=seed)
        source = self.name if self.files is None else str(self.files)
        found = read_shipped(self.name) if self.files is None else read_series(self.files)
        if self.test_files is not None:
            if "x_test" in found:
                raise ValueError(
                    f"Received test data in {self.files} and test_files={self.test_files!r}; "
                    "expected one of them. Leave out `test_files`, or `x_test`."
                )
            test = read_series(self.test_files)
            found |= {"x_test": test["x"]} | ({"y_test": test["y"]} if "y" in test else {})
        for part in ("", "_test"):
            if f"x{part}" in found and f"y{part}" not in found:
                raise ValueError(
                    f"Received `x{part}` without `y{part}` in {source}; expected a target for "
                    f"every sample. Add `y{part}`."
                )
        if "x_test" not in found and not self.validation:
            raise ValueError(
                f"Received {source} with no test data and validation=0; expected some data to "
                "score on. Set `validation`, e.g. to 0.2, or give `x_test` and `y_test` or "
                "`test_files`."
            )
        description: dict[str, Any] = {"source": source, "kind": self.kind}
        targets, facts = self._fit_targets(found["y"], source)
        description |= facts
        held = self._held_out(targets, seed)
        x = self._numbers(found["x"], source, "x")
        train = np.setdiff1d(np.arange(len(x)), held)
        description |= self._fit_statistics(x[train], targets[train])
        parts: dict[str, tuple[np.ndarray, np.ndarray]] = {"train": (x[train], found["y"][train])}
        if len(held):
            parts["validation"] = x[held], found["y"][held]
        if "x_test" in found:
            parts["test"] = self._numbers(found["x_test"], source, "x_test"), found["y_test"]
        splits = {part: self._split(*arrays, description, source) for part, arrays in parts.items()}
        description |= {f"{part}_samples": len(split) for part, split in splits.items()}
        return TaskData(splits["train"], splits.get("validation"), splits.get("test"), description)

    def read(self, path: str, description: dict[str, Any]) -> Split:
        """A user's file, with the training data's statistics and classes; `y` is optional."""
        found = read_series(path)
        return self._split(
            self._numbers(found["x"], str(path), "x"), found.get("y"), description, str(path)
        )

    def summarize(self, evaluation: dict[str, float], data: TaskData) -> dict[str, float]:
        """The metrics; errors of a regression with one output are in the target's own unit."""
        figures = super().summarize(evaluation, data)
        for power, name in enumerate(("mean_absolute_error", "mean_squared_error"), start=1):
            if name in figures:
                figures[name] = self._in_own_unit(figures[name], data.description, power)
        return figures

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Of `held_out`: the commonest class and the nearest neighbour; or the targets' mean."""
        train, test = data.train.arguments(), data.held_out.arguments()
        if self.kind == "regression":
            error = float(np.abs(test["y"] - train["y"].mean(axis=0)).mean())
            return {"mean of the targets": self._in_own_unit(error, data.description)}
        commonest = np.bincount(train["y"]).argmax()
        figures = {"commonest class": float((test["y"] == commonest).mean())}
        if test["x"].shape[1:] == train["x"].shape[1:]:
            neighbour = train["y"][nearest_rows(test["x"], train["x"])]
            figures["nearest neighbour"] = float((test["y"] == neighbour).mean())
        return figures

    def decode(self, outputs: np.ndarray, description: dict[str, Any]) -> np.ndarray:
        """Class names `(N,)`, or targets `(N, K)` in their own unit."""
        outputs = np.asarray(outputs)
        if self.kind == "classification":
            return np.asarray(description["classes"])[outputs.argmax(axis=-1)]
        return outputs * description["target_scale"] + description["target_mean"]

    @staticmethod
    def _in_own_unit(error: float, description: dict[str, Any], power: int = 1) -> float:
        scale = description["target_scale"]
        return error * scale[0] ** power if len(scale) == 1 else error

    def _fit_targets(self, y: np.ndarray, source: str) -> tuple[np.ndarray, dict[str, Any]]:
        """The targets as numbers, and what the data says about them."""
        if self.kind == "regression":
            targets = real_targets(y, source)
            return targets, {"num_outputs": targets.shape[1]}
        found = labels(y, source)
        classes = in_order(found)
        if len(classes) < 2:
            raise ValueError(
                f"Received {len(classes)} class ({classes[0]!r}) in {source}; expected at least 2. "
                "Check `y`, or use target='regression'."
            )
        number = {label: at for at, label in enumerate(classes)}
        targets = np.asarray([number[label] for label in found], np.int32)
        return targets, {"num_classes": len(classes), "classes": classes}

    def _held_out(self, targets: np.ndarray, seed: int) -> np.ndarray:
        """Which training samples are for validation: a part of each class, never all of one."""
        if not self.validation:
            return np.zeros(0, int)
        order = np.random.default_rng([seed, len(targets)]).permutation(len(targets))
        if self.kind == "classification":
            # Each class spread evenly over 0 to 1, so that any share of it is a share of each.
            place = np.zeros(len(targets))
            for label in np.unique(targets):
                rows = order[targets[order] == label]
                place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
                place[rows[-1]] = 2.0  # Stays in the training part.
            order = order[np.argsort(place[order], kind="stable")]
            free = int((place < 2.0).sum())
        else:
            free = len(targets) - 1
        count = min(max(1, round(self.validation * len(targets))), free)
        if count < 1:
            raise ValueError(
                f"Received {len(targets)} training samples and validation={self.validation}; "
                "expected at least one that can be spared, beside one of each class. Give more "
                "samples."
            )
        return np.sort(order[:count])

    def _numbers(self, x: np.ndarray, source: str, name: str) -> np.ndarray:
        """Refuses what is not finite, and NaN too unless `missing` is "zero"."""
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(x.astype(np.float32))
        if self.missing == "zero":
            bad &= ~np.isnan(x)
        if bad.any():
            sample, step, channel = (int(at) for at in np.argwhere(bad)[0])
            value = x[sample, step, channel]
            mend = "Mend the data."
            if np.isnan(value):
                mend = 'Mend the data, or train with the task\'s missing="zero".'
            raise ValueError(
                f"Received {value} in `{name}` of {source} at sample {sample}, step {step}, "
                f"channel {channel}, and {int(bad.sum())} such values in all; expected finite "
                f"float32 numbers. {mend}"
            )
        return x

    def _fit_statistics(self, x: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        known = ~np.isnan(x)
        mean, scale = mean_and_scale(np.where(known, x, 0.0), known, (0, 1))
        facts = {"length": x.shape[1], "channels": x.shape[2]}
        facts |= {"mean": mean, "scale": scale} if self.normalize else {}
        if self.kind == "regression":
            mean, scale = mean_and_scale(targets, np.ones_like(targets, bool), (0,))
            if not self.normalize:
                mean, scale = [0.0] * len(mean), [1.0] * len(scale)
            facts |= {"target_mean": mean, "target_scale": scale}
            own = len(mean) == 1 or not self.normalize
            facts["unit"] = "the target's own" if own else "standard deviations of each target"
        else:
            facts["unit"] = "fraction of samples that are right"
        return facts

    def _split(
        self, x: np.ndarray, y: np.ndarray | None, description: dict[str, Any], source: str
    ) -> Split:
        if x.shape[2] != description["channels"]:
            raise ValueError(
                f"Received {x.shape[2]} channels in {source}; expected {description['channels']}, "
                "as in the training data. Give series of the same channels."
            )
        if "mean" in description:
            x = (x - description["mean"]) / description["scale"]
        x = np.nan_to_num(x, nan=0.0).astype(np.float32)
        if y is None:
            return Split(x)
        if self.kind == "regression":
            targets = real_targets(y, source)
            if targets.shape[1] != description["num_outputs"]:
                raise ValueError(
                    f"Received {targets.shape[1]} targets a sample in {source}; expected "
                    f"{description['num_outputs']}, as in the training data. Give the same ones."
                )
            targets = (targets - description["target_mean"]) / description["target_scale"]
            return Split(x, targets.astype(np.float32))
        number = {label: at for at, label in enumerate(description["classes"])}
        found = labels(y, source)
        unknown = sorted({label for label in found if label not in number})
        if unknown:
            raise ValueError(
                f"Received the classes {', '.join(unknown[:5])} in {source}; expected those of the "
                f"training data: {', '.join(number)}. Add samples of them, or leave them out."
            )
        return Split(x, np.asarray([number[label] for label in found], np.int32))


def _one_of(options: tuple[str, ...], **named: Any) -> Any:
    ((name, value),) = named.items()
    if value not in options:
        raise ValueError(
            f"Received {name}={value!r}; expected {' or '.join(map(repr, options))}. Use one of "
            "them."
        )
    return value
