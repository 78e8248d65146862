"""From a configuration to a trained model in a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import keras

from ember_keras import backend, registry
from ember_keras.callbacks import BudgetedSchedule, SaveEveryEpoch, StopOnNaN, TimeBudget
from ember_keras.config import Component, ConfigError, to_json, to_yaml
from ember_keras.config.shown import shown
from ember_keras.models.saving import load_model, save_model
from ember_keras.models.saving.budget import of_this_machine
from ember_keras.pipelines import figures
from ember_keras.pipelines.errors import RunError, message_of
from ember_keras.pipelines.files import (
    CONFIG,
    DATA,
    HISTORY,
    METRICS,
    MODEL,
    RunFolder,
    check_name,
    write_text,
)
from ember_keras.pipelines.interrupts import Interrupts
from ember_keras.pipelines.optimizers import make_optimizer
from ember_keras.pipelines.settings import SampleSettings, TrainingSettings, plain
from ember_keras.tasks import Task, TaskData
from ember_keras.tasks.batches import Batches

Report = Callable[[str], None]
"""Takes one line on what a pipeline is doing; the pipeline itself prints nothing."""


MAX_SEED = 2**32 - 1
"""The largest that numpy starts from."""
_TRAINING, _SAMPLE = TrainingSettings(), SampleSettings()


def silent(line: str) -> None:
    """The report that tells nobody."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training run found.

    Args:
        folder: Path. Where its files are.
        metrics: dict. What `metrics.json` holds.
        sample: str or None. The text that the model wrote.
    """

    folder: Path
    metrics: dict[str, Any]
    sample: str | None


@registry.pipelines.register("training")
class Training:
    """Trains a model on a task, and keeps everything that is needed to use and repeat it.

    Args:
        task: a name or configuration of `registry.tasks`.
        model: a name or configuration of `registry.models`. Sizes that follow from the data, such
            as `vocab_size` and `num_classes`, may be left out.
        name: str or None. The name of the run and its folder; None takes the task's name.
        seed: int, 0 to 2**32 - 1. Starts every source of chance: weights, data order, dropout and
            sampling.
        training: TrainingSettings.
        sample: SampleSettings or None. The text that a model of text writes at the end.

    Example:

    ```python
    import tempfile
    import ember_keras as ek

    training = ek.registry.pipelines.build({
        "type": "training",
        "task": {"type": "in_context_recall", "length": 16, "train_samples": 64},
        "model": {"type": "causal_lm", "width": 16},
        "training": {"epochs": 1},
    })
    if ek.backend.capabilities().trains:
        with tempfile.TemporaryDirectory() as folder:
            print(training.run(folder).metrics["held_out"])
    ```
    """

    def __init__(
        self,
        task: Annotated[Any, Component("tasks")],
        model: Annotated[Any, Component("models")],
        name: str | None = None,
        seed: int = 0,
        training: TrainingSettings = _TRAINING,
        sample: SampleSettings | None = _SAMPLE,
    ):
        self.task = task if isinstance(task, Task) else registry.tasks.build(task)
        self.model = registry.check(model, ("models",))
        self.name = name if name is not None else registry.tasks.name_of(self.task) or "run"
        check_name(self.name)
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(
                "seed", f"received {shown(seed)}, expected a whole number from 0 to {MAX_SEED}."
            )
        self.seed = seed
        self.training = training
        self.sample = sample

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this pipeline again, as plain data."""
        return {
            "name": self.name,
            "seed": self.seed,
            "task": explicit_config(self.task, "tasks"),
            "model": self.model,
            "training": plain(self.training),
            "sample": None if self.sample is None else plain(self.sample),
        }

    def build_model(self) -> tuple[keras.Model, int]:
        """The model as training would begin with it, and the length of the data's samples."""
        keras.utils.set_random_seed(self.seed)
        data = self.task.load(self.seed)
        model = build_model(self.model, self.task, data, self.training.dtype)
        return model, int(data.train.x.shape[1])

    def run(
        self,
        output: str | Path = "runs",
        *,
        overwrite: bool = False,
        report: Report = silent,
        verbose: int = 0,
    ) -> TrainingResult:
        """Trains, scores and writes `output/name/`.

        Args:
            output: str or Path. The folder that holds the runs.
            overwrite: bool. Whether a run of the same name may be replaced by this one's first
                model.
            report: callable, given each line on what happens.
            verbose: int. 0, or Keras's own 1 (progress bars) or 2 (one line an epoch).

        Raises:
            ValueError: the configuration or its data cannot be used; nothing is left behind.
            RunError: the run failed or was interrupted; the message says what was kept.
        """
        backend.require_training()
        with Interrupts(report) as interrupts:
            folder = RunFolder(Path(output), self.name, overwrite)
            try:
                return self._run(folder, interrupts, report, verbose)
            finally:
                folder.discard()

    def _run(
        self, folder: RunFolder, interrupts: Interrupts, report: Report, verbose: int
    ) -> TrainingResult:
        keras.utils.set_random_seed(self.seed)
        data = self.task.load(self.seed)
        interrupts.check()
        model = build_model(self.model, self.task, data, self.training.dtype)
        config = {"type": "training", **self.get_config()}
        config["model"] = explicit_config(model, "models")
        if not hasattr(model, "generate") or not hasattr(self.task, "to_text"):
            config["sample"] = None
        write_text(folder.path / CONFIG, to_yaml(config))
        write_text(folder.path / DATA, to_json(data.description))
        report(
            f"{self.name}: {model.count_params():,} parameters, {backend.name()} backend, seed "
            f"{self.seed}"
        )
        batches = self._compile(model, data)
        saving = self._saving(data, folder)
        with self._kept(model, saving, folder, interrupts, report):
            began = time.monotonic()
            self._fit(model, data, batches, [StopOnNaN(), saving, interrupts], verbose)
            minutes = (time.monotonic() - began) / 60
            interrupts.check()
            if not saving.epoch:
                raise FloatingPointError("No epoch ended with finite weights")
            self._write_history(model, folder, report)
            if self.training.keep == "best":
                model = load_model(folder.path / MODEL)
            metrics = {
                "name": self.name,
                "epoch": saving.epoch,
                "minutes": round(minutes, 3),
                "parameters": model.count_params(),
                "main_metric": self.task.main_metric,
                "held_out": figures.score(
                    model, self.task, data, self.training.batch_size, [interrupts]
                ),
                "baselines": self.task.baselines(data),
                "backend": backend.name(),
                "versions": versions(),
            }
            write_text(folder.path / METRICS, to_json(metrics))
            interrupts.check()
            sample = None
            if config["sample"] is not None and self.sample is not None:
                sample = figures.write_sample(model, self.task, self.sample, self.seed)
                write_text(folder.path / "sample.txt", sample)
            interrupts.check()
            return TrainingResult(folder.path, metrics, sample)

    def _compile(self, model: keras.Model, data: TaskData) -> Batches:
        settings = self.training
        model.compile(
            make_optimizer(settings, model),
            jit_compile="auto" if settings.jit is None else settings.jit,
            **self.task.compile_arguments(),
        )
        return self.task.batches(
            data, batch_size=settings.batch_size, seed=self.seed, steps=settings.steps_per_epoch
        )

    def _fit(
        self,
        model: keras.Model,
        data: TaskData,
        batches: Batches,
        callbacks: list[keras.callbacks.Callback],
        verbose: int,
    ) -> None:
        settings = self.training
        schedule = BudgetedSchedule(
            settings.learning_rate,
            settings.schedule,
            settings.warmup_steps,
            settings.final_share,
            settings.max_minutes,
        )
        callbacks = [batches.callback, schedule, *callbacks]
        if settings.max_minutes is not None:
            callbacks.insert(0, TimeBudget(settings.max_minutes))
        validation: dict[str, Any] = {}
        if data.validation is not None:
            validation["validation_data"] = data.validation.validation_data()
            validation["validation_batch_size"] = figures.even_batch_size(
                len(data.validation), settings.batch_size
            )
        model.fit(
            batches,
            shuffle=False,
            epochs=settings.epochs,
            callbacks=callbacks,
            verbose=verbose,
            **validation,
        )

    def _saving(self, data: TaskData, folder: RunFolder) -> SaveEveryEpoch:
        best = self.training.keep == "best"
        if best and data.validation is None:
            raise ConfigError(
                "training.keep",
                "received 'best', and the task has no validation data to choose by. Use 'last', or "
                "set the task's `validation`.",
            )
        return SaveEveryEpoch(
            folder.path / MODEL,
            monitor="val_loss" if best else None,
            save=lambda model, _: folder.save_model(lambda path: save_model(model, path)),
        )

    @contextlib.contextmanager
    def _kept(
        self,
        model: keras.Model,
        saving: SaveEveryEpoch,
        folder: RunFolder,
        interrupts: Interrupts,
        report: Report,
    ) -> Iterator[None]:
        """Turns what ends a run early into one `RunError` that says what is left."""
        try:
            yield
        except (KeyboardInterrupt, ArithmeticError, OSError, RuntimeError, ValueError) as error:
            interrupted = interrupts.heard or isinstance(error, KeyboardInterrupt)
            what = "Interrupted" if interrupted else message_of(error)
            kept = "No epoch was finished and saved, so nothing is left behind."
            if folder.target.exists():
                kept = f"No epoch was finished and saved; {folder.target} is as it was."
            if folder.published:
                kept = f"The last finished epoch, {saving.epoch}, is saved: {folder.path / MODEL}"
                with contextlib.suppress(OSError):
                    self._write_history(model, folder, report)
            raise RunError(f"{what.rstrip('.')}. {kept}") from error

    def _write_history(self, model: keras.Model, folder: RunFolder, report: Report) -> None:
        history = {
            key: [float(value) for value in values] for key, values in model.history.history.items()
        }
        write_text(folder.path / HISTORY, to_json(history))
        figures.plot_history(history, folder.path / "loss.png", report)


def build_model(
    config: dict[str, Any], task: Task, data: TaskData, dtype: str = "float32"
) -> keras.Model:
    """Builds a model for a task's data; what follows from the data is filled in.

    Raises:
        ConfigError: the model does not fit the task, or cannot be built.
    """
    name = config["type"]
    known = {parameter.name for parameter in registry.own_parameters(registry.models.get(name))}
    filled = dict(config)
    for key, value in task.model_arguments(data).items():
        if key not in known:
            raise ConfigError(
                "model.type",
                f"received {name!r}, which has no `{key}`; the task's data needs a model with "
                f"{key}={value}, for {task.kind.replace('_', ' ')}.",
            )
        if filled.setdefault(key, value) != value:
            raise ConfigError(
                f"model.{key}",
                f"received {filled[key]!r}; the task's data has {value}. Leave the key out.",
            )
    x = data.train.x
    budget = of_this_machine()
    try:
        with budget:
            model = registry.models.build(filled, dtype=dtype)
            model.build((None, *x.shape[1:]))
        outputs = model.compute_output_spec(keras.KerasTensor((2, *x.shape[1:]), str(x.dtype)))
    except ConfigError as error:
        raise ConfigError(f"model.{error.path}".rstrip("."), error.problem) from error
    except (TypeError, ValueError) as error:
        raise ConfigError("model", message_of(budget.error or error)) from error
    if task.kind == "language_modeling" and not getattr(model, "is_causal", True):
        raise ConfigError(
            "model",
            f"received a {name!r} that looks both ways, which would see the tokens that the task "
            "asks for. Give it causal blocks, or use a causal_lm.",
        )
    expected = (2, *task.output_shape(data))
    if isinstance(outputs, dict):
        raise ConfigError(
            "model.type",
            f"received {name!r}, which gives a dict of features and has no head; the task needs "
            f"one tensor {expected}, for {task.kind.replace('_', ' ')}. Use a model with a head.",
        )
    if tuple(outputs.shape) != expected:
        raise ConfigError(
            "model.type",
            f"received {name!r}, whose outputs for 2 samples are {tuple(outputs.shape)}; the task "
            f"needs {expected}, for {task.kind.replace('_', ' ')}.",
        )
    return model


def explicit_config(component: Any, kind: str) -> dict[str, Any]:
    """A component's configuration with every argument written out."""
    config = component.get_config()
    own = registry.own_parameters(type(component))
    return {
        "type": registry.table(kind).name_of(component),
        **{parameter.name: config[parameter.name] for parameter in own if parameter.name in config},
    }


def versions() -> dict[str, str]:
    """The versions that a run depends on."""
    library = backend.installed()[backend.name()].version
    found = {"python": platform.python_version(), "keras": keras.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["ember_keras"] = metadata.version("ember-keras")
    return {**found, backend.name(): library or "unknown"}
