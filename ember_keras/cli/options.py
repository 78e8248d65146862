"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ember_keras import backend


def _check_backend(value: str | None) -> str | None:
    if value is not None and value != backend.name():
        raise typer.BadParameter(
            f"this process runs under {backend.name()}; set KERAS_BACKEND={value} instead."
        )
    return value


Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="numpy, torch, jax, tensorflow or mlx; goes before KERAS_BACKEND.",
        callback=_check_backend,
        metavar="NAME",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Traceback = Annotated[
    bool, typer.Option("--traceback", help="Show where an error comes from in the code.")
]
Model = Annotated[
    Path, typer.Argument(help="A run folder, or a .keras file.", metavar="RUN_OR_MODEL")
]
BatchSize = Annotated[int, typer.Option(help="Samples a batch.", min=1)]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write to this file.", metavar="FILE", dir_okay=False),
]
