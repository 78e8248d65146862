"""`ember-keras train`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ember_keras import registry
from ember_keras.cli import options
from ember_keras.cli.output import figures_table, progress, reporting, show, show_json, tell
from ember_keras.config import ConfigError, read_config, set_value


def train(
    config: Annotated[Path, typer.Argument(help="A YAML or JSON configuration.", metavar="CONFIG")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a key of the configuration: --set training.epochs=3. May be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for run folders.", metavar="DIR")
    ] = Path("runs"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run of the same name.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """Train a model as a configuration says, into a run folder.

    The folder is DIR/NAME, where NAME is the configuration's `name`, or else its file name. It
    holds model.keras, config.yaml, data.json, history.json, metrics.json, loss.png, and sample.txt
    for a model of text. A run that exists is never overwritten unasked.
    """
    with reporting(traceback):
        pipeline = registry.pipelines.build(read_experiment(config, changes or []))
        result = pipeline.run(
            output,
            overwrite=overwrite,
            report=(lambda line: None) if quiet else tell,
            verbose=0 if quiet else progress(),
        )
    metrics = result.metrics
    if as_json:
        show_json({"folder": str(result.folder), **metrics})
        return
    figures = figures_table(
        metrics["name"], metrics["held_out"], metrics["baselines"], metrics["main_metric"]
    )
    show(
        f"\n{figures}\n\n{result.folder}: {metrics['parameters']:,} parameters, trained for "
        f"{metrics['minutes']:.1f} minutes, epoch {metrics['epoch']}"
    )
    if result.sample is not None:
        show(f"\nsample.txt begins:\n{result.sample[:300]}")


def read_experiment(path: Path, changes: list[str]) -> dict[str, Any]:
    """The configuration in a file, with `--set` applied and what may be left out filled in."""
    config = read_config(path)
    for change in changes:
        set_value(config, change)
    if config.setdefault("type", "training") != "training":
        raise ConfigError("type", f"received {config['type']!r}; only `training` trains.")
    if config.get("name") is None:
        config["name"] = re.sub(r"[^A-Za-z0-9._-]", "_", path.stem).lstrip(".-") or "run"
    return config
