"""`ember-keras evaluate`, `predict` and `generate`."""

from __future__ import annotations

import csv
import functools
import io
import math
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

from ember_keras.cli import options
from ember_keras.cli.output import figures_table, json_lines, reporting, show, show_json, table
from ember_keras.config import to_json
from ember_keras.pipelines import (
    Evaluation,
    Generation,
    InputError,
    Prediction,
    Predictions,
    RunError,
    SampleSettings,
    compare_backends,
)
from ember_keras.pipelines.files import write_bytes

_TOLERANCE = 1e-4


def evaluate(
    model: options.Model,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A file or folder with targets, or a task's name; the run's own task by default.",
            metavar="[INPUT]",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare-backends",
            help="Score the saved model again under a second backend, in a new process, beside "
            "what training found. Fails where they differ by more than 1e-4.",
        ),
    ] = False,
    batch_size: options.BatchSize = 32,
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """Score a trained model on held-out data."""
    if compare:
        _compare(model, source, as_json, traceback)
        return
    with reporting(traceback):
        found = Evaluation(batch_size).run(model, source)
    if as_json:
        show_json(found)
        return
    figures = figures_table(str(model), found["held_out"], found["baselines"], found["main_metric"])
    show(f"{figures}\n\n{found['samples']:,} samples, {found['backend']} backend")


def _compare(model: Path, source: str | None, as_json: bool, traceback: bool) -> None:
    with reporting(traceback):
        if source is not None:
            raise InputError("Received INPUT and --compare-backends; expected one of them.")
        found = compare_backends(model)
    data: dict[str, Any] = {
        "first": found.first,
        "second": found.second,
        "figures": {key: list(pair) for key, pair in found.figures.items()},
        "difference": found.difference,
    }
    if as_json:
        show_json(data)
    else:
        rows = [
            (key.replace("_", " "), f"{one:.6f}", f"{other:.6f}", f"{abs(one - other):.1e}")
            for key, (one, other) in found.figures.items()
        ]
        show(table(rows, ("held out", f"{found.first} (trained)", found.second, "difference")))
    with reporting(traceback):
        if not found.difference <= _TOLERANCE:
            raise RunError(
                f"{found.first} and {found.second} differ by {found.difference:.1e}; expected at "
                f"most {_TOLERANCE:.0e}."
            )


def predict(
    model: options.Model,
    source: Annotated[
        str,
        typer.Argument(
            help="A text file or folder, .npy, .npz, .csv or .ts, or a task's name.",
            metavar="INPUT",
        ),
    ],
    output: options.Output = None,
    batch_size: options.BatchSize = 32,
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """Predict for every sample of a file.

    One line a sample on standard output: a class, a number, or next tokens. A FILE ending in .json,
    .csv, .npy or .npz gets that format; .npz holds the model's own outputs too.
    """
    with reporting(traceback):
        kind = None if output is None else _format(output)
        found = Prediction(batch_size).run(model, source)
        if output is not None and kind is not None:
            write_bytes(output, _WRITERS[kind](found))
    if as_json:
        show_json({"predictions": found.values.tolist(), "outputs": found.outputs.tolist()})
    elif output is None:
        show("\n".join(_line(value) for value in found.values))


def _line(value: Any) -> str:
    return " ".join(str(part) for part in np.ravel(value))


def _format(path: Path) -> str:
    if path.suffix not in _WRITERS:
        raise InputError(
            f"Received the file {path}; expected a name ending in {', '.join(_WRITERS)}."
        )
    return path.suffix


def _as_csv(found: Predictions) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    rows = found.values.reshape(len(found.values), -1)
    writer.writerow(
        ["prediction"] if rows.shape[1] == 1 else [f"prediction_{i}" for i in range(rows.shape[1])]
    )
    writer.writerows(rows.tolist())
    return text.getvalue().encode("utf-8")


def _as_npz(found: Predictions) -> bytes:
    data = io.BytesIO()
    np.savez_compressed(data, predictions=found.values, outputs=found.outputs)
    return data.getvalue()


def _as_npy(found: Predictions) -> bytes:
    data = io.BytesIO()
    np.save(data, found.values, allow_pickle=False)
    return data.getvalue()


_WRITERS = {
    ".json": lambda found: to_json({"predictions": found.values.tolist()}).encode("utf-8"),
    ".jsonl": lambda found: json_lines(found.values.tolist()).encode("utf-8"),
    ".csv": _as_csv,
    ".npy": _as_npy,
    ".npz": _as_npz,
    ".txt": lambda found: "\n".join(_line(value) for value in found.values).encode("utf-8"),
}


def generate(
    model: options.Model,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What to continue; - reads standard input.")
    ] = "The ",
    length: Annotated[int, typer.Option("--length", "-n", help="Tokens to add.", min=1)] = 256,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Above 1 is more random, 0 takes the likeliest token.  [default: 0.8]", min=0.0
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the k likeliest tokens only.", min=1)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens of this probability.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Draw only tokens of this share of the likeliest one's probability."),
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1, what stands before is less likely.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End before this text; may be given again.", metavar="TEXT"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed writes the same text.", min=0)
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(help="Draw nothing: find the likeliest text by a search this wide.", min=1),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(help="Of --beams: above 0 favours longer texts.  [default: 1]"),
    ] = None,
    output: options.Output = None,
    as_json: options.Json = False,
    backend: options.Backend = None,
    traceback: options.Traceback = False,
) -> None:
    """Let a language model continue a prompt, as it writes."""
    streams = output is None and not as_json
    with reporting(traceback) as stdout:
        text = sys.stdin.read() if prompt == "-" else prompt
        if not text:
            raise InputError("Received an empty prompt; expected at least one character.")
        for name, share in (("top-p", top_p), ("min-p", min_p)):
            if share is not None and not 0 < share <= 1:
                raise InputError(f"Received --{name} {share}; expected above 0, and at most 1.")
        if repetition_penalty is not None and not 0 < repetition_penalty < math.inf:
            raise InputError(
                f"Received --repetition-penalty {repetition_penalty}; expected a number above 0."
            )
        if stop and "" in stop:
            raise InputError("Received an empty --stop; expected at least one character.")
        drawn = {"temperature": temperature, "top-k": top_k, "top-p": top_p, "min-p": min_p}
        for name, value in {**drawn, "seed": seed}.items():
            if beams is not None and value is not None:
                raise InputError(
                    f"Received --beams {beams} and --{name} {value}; expected one of them, as a "
                    "beam search draws nothing."
                )
        if length_penalty is not None and (beams is None or not math.isfinite(length_penalty)):
            raise InputError(
                f"Received --length-penalty {length_penalty}; expected a finite number, with "
                "--beams."
            )
        settings = SampleSettings(
            prompt=text,
            length=length,
            temperature=0.8 if temperature is None else temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
        )
        found = Generation(settings, seed, stop or None, beams, length_penalty).run(
            model, functools.partial(_write_now, stdout) if streams else None
        )
        if output is not None:
            write_bytes(output, (found["prompt"] + found["text"]).encode("utf-8"))
    if as_json:
        show_json(found)
    elif streams:
        show("")


def _write_now(stream: TextIO, piece: bytes) -> None:
    """Bytes to a stream at once."""
    stream.flush()
    stream.buffer.write(piece)
    stream.buffer.flush()
