"""A trained model with what is known about its data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras

from ember_keras import registry
from ember_keras.config import ConfigError, read_config
from ember_keras.config.components import nearest
from ember_keras.models.saving import load_model
from ember_keras.pipelines.errors import InputError
from ember_keras.pipelines.files import CONFIG, DATA, METRICS, MODEL
from ember_keras.tasks import Split, Task, TaskData


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model, and the task that it was trained on.

    Args:
        path: Path. The `.keras` file.
        model: keras.Model.
        task: Task or None, where the file stands alone and the task is unknown.
        description: dict or None. What the training data were; see `TaskData.description`.
        seed: int. The seed of the run.
    """

    path: Path
    model: keras.Model
    task: Task | None = None
    description: dict[str, Any] | None = None
    seed: int = 0

    def with_task(self, name: str) -> Opened:
        """The model with another task, of the default arguments."""
        return dataclasses.replace(self, task=registry.tasks.build(name), description=None)

    def require_task(self) -> Task:
        """The task; an `InputError` where it is unknown."""
        if self.task is None:
            raise InputError(
                f"{self.path} has no {CONFIG} beside it, so what its data are is unknown. Give the "
                f"run folder, or a task's name: {', '.join(registry.tasks.names())}."
            )
        return self.task

    def read(self, path: str) -> Split:
        """A user's file, treated as the training data were."""
        _require_input(path)
        return self.require_task().read(path, self._known_description())

    def data_of(self, split: Split) -> TaskData:
        """A file's split as task data, so that the task can summarize its figures."""
        return TaskData(split, None, split, self._known_description())

    def load(self) -> TaskData:
        """The task's own data; an `InputError` where the model does not fit them."""
        task = self.require_task()
        data = task.load(self.seed)
        for key, value in task.model_arguments(data).items():
            if getattr(self.model, key, None) != value:
                raise InputError(
                    f"{self.path} has {key}={getattr(self.model, key, None)}; the task "
                    f"{registry.tasks.name_of(task)!r} needs {key}={value}. Choose the task that "
                    "the model was trained on."
                )
        return data

    def _known_description(self) -> dict[str, Any]:
        return self.description if self.description is not None else self.load().description


def open_model(path: str | Path) -> Opened:
    """Opens a run folder or a `.keras` file.

    Raises:
        InputError: there is no such run or file.
        ValueError: the file is damaged, or not allowed.
    """
    path = Path(path)
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        beside = [entry.name for entry in file.parent.glob("*")] if file.parent.is_dir() else []
        problem = f"holds no {MODEL}" if path.is_dir() else "does not exist"
        raise InputError(
            f"{path} {problem}; expected a run folder or a `.keras` file."
            + ("" if path.is_dir() else nearest(path.name, beside))
        )
    if file.suffix != ".keras":
        raise InputError(f"{path} is no `.keras` file; expected a run folder or a `.keras` file.")
    model = load_model(file, compile=False)
    if file.name != MODEL or not (file.parent / CONFIG).is_file():
        return Opened(file, model)
    try:
        config = read_config(file.parent / CONFIG)
        run = registry.pipelines.build({"type": "training", **config})
    except ConfigError as error:
        raise ConfigError("", f"{file.parent / CONFIG}: {error}") from error
    return Opened(file, model, run.task, _read_json(file.parent / DATA), run.seed)


def read_metrics(path: str | Path) -> dict[str, Any]:
    """What `metrics.json` of a run folder holds."""
    found = _read_json(Path(path) / METRICS)
    if found is None or not isinstance(found.get("held_out"), dict):
        raise InputError(
            f"{path} holds no {METRICS} of a finished run; expected the folder of one."
        )
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _require_input(path: str) -> None:
    if not Path(path).exists():
        raise InputError(
            f"{path} does not exist; expected a file, a folder of text files, or a task's name: "
            f"{', '.join(registry.tasks.names())}.{nearest(path, registry.tasks.names())}"
        )
