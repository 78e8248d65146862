"""What is measured and drawn of a trained model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from ember_keras.pipelines.files import write_bytes
from ember_keras.pipelines.settings import SampleSettings
from ember_keras.tasks import Split, Task, TaskData


def score(
    model: keras.Model,
    task: Task,
    data: TaskData,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """The task's figures on its held-out data."""
    return score_split(model, task, data, data.held_out, batch_size, callbacks)


def score_split(
    model: keras.Model,
    task: Task,
    data: TaskData,
    split: Split,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """The task's figures on one split."""
    evaluation = model.evaluate(
        **split.arguments(),
        batch_size=even_batch_size(len(split), batch_size),
        verbose=0,
        callbacks=list(callbacks),
        return_dict=True,
    )
    return task.summarize({key: float(value) for key, value in evaluation.items()}, data)


def even_batch_size(samples: int, trained: int) -> int:
    """A batch size for scoring that leaves no short batch, which would compile once more.

    It is at most that of training, or 32; where no size above half of this divides the samples, it
    is this.
    """
    most = max(trained, 32)
    sizes = range(min(most, samples), most // 2, -1)
    return next((size for size in sizes if samples % size == 0), min(most, samples))


def write_sample(model: keras.Model, task: Any, settings: SampleSettings, seed: int) -> str:
    """Text that the model writes after the prompt, the prompt included."""
    prompt = task.encode(settings.prompt)
    tokens = model.generate(prompt, settings.length, seed=seed, **settings.drawing())
    return task.to_text(tokens)


def plot_history(
    history: dict[str, list[float]], path: Path, report: Callable[[str], None]
) -> None:
    """Draws the losses over the epochs; without matplotlib it says so in one line."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        report(f"{path.name} was not drawn: matplotlib is not installed (the extra `plot`).")
        return
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for key, label in (("loss", "training"), ("val_loss", "validation")):
        if history.get(key):
            axes.plot(range(1, len(history[key]) + 1), history[key], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_bytes(path, drawn.getvalue())
