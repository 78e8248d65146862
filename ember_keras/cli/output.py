"""How results are printed: results on standard output, what happens meanwhile on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import typer

from ember_keras.config import to_json
from ember_keras.pipelines import InputError, RunError
from ember_keras.pipelines.errors import message_of

_UNUSABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What is wrong with a path that the user gave."""


@contextlib.contextmanager
def reporting(traceback: bool = False) -> Iterator[TextIO]:
    """Runs a command: its progress goes to standard error, and an error becomes one message.

    Gives the standard output, for what must be written there meanwhile. Exit status 2 is for
    arguments, configurations and files that cannot be used, 1 for a run that failed or was
    interrupted.
    """
    status, message = 0, ""
    try:
        stdout = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout
    except BrokenPipeError:
        _drop_output()
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        status, message = 1, "Interrupted."
    except (RunError, MemoryError) as error:
        if traceback:
            raise
        status, message = 1, message_of(error)
    except (ImportError, InputError, TypeError, ValueError, *_UNUSABLE) as error:
        if traceback:
            raise
        status, message = 2, message_of(error)
    except OSError as error:
        if traceback:
            raise
        status, message = 1, message_of(error)
    if status:
        tell(f"ember-keras: {message}")
        raise typer.Exit(status)


def tell(line: str) -> None:
    """One line to standard error."""
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Text to standard output; a reader that has gone away ends the command."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_output()
        raise typer.Exit(1) from None


def show_json(data: Any) -> None:
    """JSON to standard output."""
    show(to_json(data))


def table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...] = ()) -> str:
    """Rows in columns: the first to the left, numbers to the right."""
    lines = [head, *rows] if head else rows
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in lines
    )


def figures_table(
    name: str, figures: dict[str, float], baselines: dict[str, float], main_metric: str
) -> str:
    """The held-out figures of a model, and those of simple methods beside the main one."""
    words = main_metric.replace("_", " ")
    rows = [(name, f"{figures[main_metric]:.4f}")]
    rows += [(method, f"{value:.4f}") for method, value in baselines.items()]
    text = table(rows, ("held out", words))
    others = [
        (key.replace("_", " "), f"{v:.6f}") for key, v in figures.items() if key != main_metric
    ]
    return f"{text}\n\n{table(others)}" if others else text


def progress() -> int:
    """Keras's `verbose`: its bars on a terminal, one line an epoch elsewhere."""
    return 1 if sys.stderr.isatty() else 2


def json_lines(values: Any) -> str:
    """One JSON value a line."""
    return "\n".join(json.dumps(value, ensure_ascii=False) for value in values)


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?[0-9,]+(\.[0-9]+)?(e[-+][0-9]+)?|-?nan|-?inf", cell) is not None


def _drop_output() -> None:
    """Lets Python's own last flush find an open file."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
