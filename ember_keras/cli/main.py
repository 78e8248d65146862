"""The command `ember-keras`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import keras
import typer

import ember_keras
from ember_keras.cli import options
from ember_keras.cli.inference import evaluate, generate, predict
from ember_keras.cli.inspect import doctor, list_components
from ember_keras.cli.output import show
from ember_keras.cli.sizes import inspect_model
from ember_keras.cli.train import train

app = typer.Typer(
    name="ember-keras",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        show(
            f"ember-keras {ember_keras.__version__}, Keras {keras.__version__}, "
            f"{ember_keras.backend.name()} backend"
        )
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the versions.", callback=_show_version, is_eager=True
        ),
    ] = False,
    backend: options.Backend = None,
) -> None:
    """Train and use sequence models on numpy, torch, jax, tensorflow and mlx.

    Exit status: 0 done, 1 the run failed or was interrupted, 2 wrong arguments, configuration or
    input. Results go to standard output, everything else to standard error.
    """


app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(generate)
app.command("list")(list_components)
app.command()(doctor)
app.command("inspect")(inspect_model)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    sys.excepthook = sys.__excepthook__  # The import of the package is done.
    try:
        app(args=sys.argv[1:] if arguments is None else arguments, prog_name="ember-keras")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0


def command() -> NoReturn:
    """Runs the command as a process of its own, which ends with the status.

    After a failure it ends without taking the libraries down in order: one that was stopped halfway
    may crash then, and hide the status.
    """
    status = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # All is done and said.
    if status != 1:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
