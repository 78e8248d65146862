"""`ember-keras list` and `doctor`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ember_keras import registry
from ember_keras.cli import options
from ember_keras.cli.output import reporting, show, show_json, table
from ember_keras.pipelines.health import diagnose
from ember_keras.pipelines.schema import experiment_schema


def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"One of {', '.join(registry.KINDS)}; all by default."),
    ] = None,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print the JSON Schema that editors complete files with."),
    ] = False,
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """List what a configuration can name, with one line each."""
    with reporting(traceback):
        kinds = registry.KINDS if kind is None else (registry.table(kind).kind,)
        found = {
            name: {
                entry: registry.table(name).describe(entry)
                for entry in registry.table(name).names()
            }
            for name in kinds
        }
        document = experiment_schema(kind) if schema else None
    if document is not None:
        show_json(document)
    elif as_json:
        show_json(found)
    else:
        show("\n\n".join(f"{name}\n{_entries(entries)}" for name, entries in found.items()))


def _entries(entries: dict[str, str]) -> str:
    rows = [(f"  {name}", line) for name, line in entries.items()]
    return table(rows) if rows else "  (none)"


def doctor(
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """Show versions, backends, devices and kernels, and why the others would not run."""
    with reporting(traceback):
        found = diagnose()
    if as_json:
        show_json(found)
        return
    parts = [
        _section(
            "versions", [(key, value or "unknown") for key, value in found["versions"].items()]
        ),
        _section("backends", [_backend_row(*item) for item in found["backends"].items()]),
        _section(
            f"running: {found['backend']['name']}",
            [("devices", ", ".join(found["backend"]["devices"]))]
            + [
                (key.replace("_", " "), "yes" if value else "no")
                for key, value in found["backend"]["capabilities"].items()
            ],
        ),
        _section(
            "kernels",
            [
                (
                    engine if i == 0 else "",
                    row["kernel"],
                    "runs" if row["runs"] else "does not run",
                    row["reason"],
                )
                for engine, rows in found["kernels"].items()
                for i, row in enumerate(rows)
            ],
        ),
        _section(
            "extras",
            [
                (key, value or f"missing: pip install 'ember-keras[{key}]'")
                for key, value in found["extras"].items()
            ],
        ),
    ]
    show("\n\n".join(parts))


def _section(title: str, rows: list[tuple[str, ...]]) -> str:
    return title + "\n" + table([(f"  {row[0]}", *row[1:]) for row in rows])


def _backend_row(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    can = "trains and predicts" if entry["trains"] else "predicts"
    return name, entry["version"] or "-", can if entry["usable"] else entry["reason"]
