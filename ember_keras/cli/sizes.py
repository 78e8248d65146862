"""`ember-keras inspect`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from ember_keras import backend as running
from ember_keras import registry
from ember_keras.cli import options
from ember_keras.cli.output import reporting, show, show_json
from ember_keras.cli.train import read_experiment
from ember_keras.config import read_config
from ember_keras.models import estimate
from ember_keras.pipelines.opening import open_model

_LENGTH = 1024
_CONFIGURATIONS = (".yaml", ".yml", ".json")


def inspect_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="A configuration of a run or of a model alone, a run folder, or a .keras file.",
            metavar="SOURCE",
        ),
    ],
    batch_size: Annotated[
        int | None, typer.Option(help="Samples a batch; the run's own, or 1.", min=1)
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help=f"Positions a sample; those of the run's data, or {_LENGTH}.", min=1),
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Features of a model of vectors that has no data.", min=1)
    ] = None,
    training: Annotated[
        bool, typer.Option(help="Whether a training step is estimated too.")
    ] = True,
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """Show what a model takes before it runs: parameters, memory, operations and bytes a token."""
    with reporting(traceback):
        model, batch, positions = _found(source)
        found = estimate(
            model,
            batch_size or batch,
            length or positions,
            training=training and running.capabilities().trains,
            width=width,
        )
    if as_json:
        show_json({"model": registry.models.name_of(model), **dataclasses.asdict(found)})
    else:
        show(f"{registry.models.name_of(model)}, {found}")


def _found(source: Path) -> tuple[Any, int, int]:
    """The model, and the batch size and length that it is used with."""
    if source.suffix.lower() not in _CONFIGURATIONS or source.is_dir():
        return open_model(source).model, 1, _LENGTH
    config = read_config(source)
    if "task" not in config:
        return registry.models.build(config), 1, _LENGTH
    pipeline = registry.pipelines.build(read_experiment(source, []))
    model, length = pipeline.build_model()
    return model, pipeline.training.batch_size, length
