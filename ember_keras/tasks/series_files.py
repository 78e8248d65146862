"""Reading time series: `.npz`, `.npy`, `.csv`, and the archives' own `.ts` text files."""

from __future__ import annotations

import csv
import importlib.util
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ember_keras.config.components import nearest

Arrays = dict[str, np.ndarray]


def read_series(path: str) -> Arrays:
    """Reads a file of series.

    Args:
        path: str, ending in
            `.npz`: `x` `(N, T)` or `(N, T, F)`, and optionally `y`, `x_test`, `y_test`; no pickles;
            `.npy`: `x` alone;
            `.csv`: UTF-8 with a header; a row a sample; the column `y` is the target where there
            is one, and the other columns are the series, one number a time step; empty is missing;
            `.ts`: the archives' text format, where `?` is missing.

    Returns:
        dict of arrays: `x` `(N, T, F)` float64, and those of `y`, `x_test`, `y_test` that are
        there.

    Raises:
        ValueError: nothing is there, or it does not have the form above; says where.
    """
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise ValueError(
            f"Received the file {str(path)!r}; expected one ending in {', '.join(_READERS)}. Save "
            "the data in one of these forms."
        )
    try:
        found = reader(Path(path))
    except FileNotFoundError:
        raise ValueError(
            f"Received the path {str(path)!r}, where there is nothing; expected a file of series. "
            f"Correct the path; it is taken from the current folder, {Path.cwd()}."
        ) from None
    except OSError as error:
        raise ValueError(
            f"Received the path {str(path)!r}, which cannot be read ({error.strerror or error}); "
            "expected a file of series. Check what it is, and its permissions."
        ) from None
    return _checked(found, str(path))


def shipped() -> dict[str, Path]:
    """Data sets inside the installed `aeon`: name -> the folder with its train and test file.

    Nothing of `aeon` is imported and nothing is downloaded.
    """
    spec = importlib.util.find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "The package `aeon`, whose data sets this task reads, is not installed. Install it: "
            "pip install 'ember-keras[data]'. Your own series need no package: set `files`."
        )
    root = Path(spec.submodule_search_locations[0], "datasets", "data")
    return {
        file.name.removesuffix("_TRAIN.ts"): file.parent
        for file in sorted(root.glob("*/*_TRAIN.ts"))
        if file.with_name(file.name.replace("_TRAIN", "_TEST")).is_file()
    }


def read_shipped(name: str) -> Arrays:
    """The official train and test part of a data set inside `aeon`; see `read_series`."""
    folders = shipped()
    if name not in folders:
        raise ValueError(
            f"Received the data set {name!r}; expected one that ships inside `aeon`: "
            f"{', '.join(folders)}.{nearest(name, folders)} Nothing is downloaded: for another "
            "set, give its file as `files`."
        )
    try:
        train, test = (
            read_series(str(folders[name] / f"{name}_{part}.ts")) for part in ("TRAIN", "TEST")
        )
    except ValueError as error:
        if f"{name}_eq" in folders:
            raise ValueError(
                f"{error} Or use {name}_eq, the same series at equal length."
            ) from None
        raise
    return {**train, "x_test": test["x"], "y_test": test["y"]}


def _read_npz(path: Path) -> Arrays:
    expected = "expected one written by numpy.savez(path, x=..., y=...). Write it again."
    try:
        with open(path, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.lib.npyio.NpzFile):
                return _read_members(found, path)
    except _Refused:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        raise ValueError(
            f"Received {path}, which is truncated, damaged or no .npz archive; {expected}"
        ) from None
    raise ValueError(f"Received {path}, which is one array and no .npz archive; {expected}")


class _Refused(ValueError):
    """A finding that already says all."""


def _read_members(file: np.lib.npyio.NpzFile, path: Path) -> Arrays:
    known = ("x", "y", "x_test", "y_test")
    unknown = [name for name in file.files if name not in known]
    if unknown or "x" not in file.files:
        names = ", ".join(file.files)
        hint = nearest(unknown[0], known) if unknown else ""
        raise _Refused(
            f"Received {f'the arrays {names}' if names else 'no arrays'} in {path}; expected "
            f"`x`, and optionally `y`, `x_test`, `y_test`.{hint} Rename them."
        )
    return {name: _plain(file, name, path) for name in file.files}


def _plain(file: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        raise _Refused(
            f"Received `{name}` in {path}, which is no plain array ({error}); expected numbers of "
            "one shape. Series of different lengths must be cut or padded to one length."
        ) from None


def _read_npy(path: Path) -> Arrays:
    try:
        with open(path, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(
            f"Received {path}, which is no plain array ({error}); expected numbers of one shape, "
            "written by numpy.save. Write it again."
        ) from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"Received {path}, an archive; expected one array. Name it .npz.")
    return {"x": found}


def _read_csv(path: Path) -> Arrays:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"Received {path}, which is no UTF-8 CSV ({error}); expected a header and a row a "
            "sample. Save it as UTF-8."
        ) from None
    if len(rows) < 2:
        raise ValueError(
            f"Received {path} with {len(rows)} rows; expected a header and at least one sample. "
            "Add rows."
        )
    header = [name.strip() for name in rows[0]]
    target = header.index("y") if "y" in header else None
    if all(_is_number(cell) for cell in header):
        raise ValueError(
            f"Received {path}, whose first row is numbers; expected a header that names the "
            "columns, `y` for the target. Add one."
        )
    x, y = [], []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise ValueError(
                f"Received {len(row)} cells in row {number} of {path}; expected {len(header)}, as "
                "in the header. Series of different lengths must be cut or padded to one length."
            )
        cells = [cell.strip() for cell in row]
        if target is not None:
            y.append(cells.pop(target))
        names = [name for at, name in enumerate(header) if at != target]
        x.append(_numbers(cells, f"row {number}, column", names, path))
    found = {"x": np.asarray(x)}
    return found if target is None else {**found, "y": np.asarray(y)}


def _read_ts(path: Path) -> Arrays:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Received {path}, which is no UTF-8 text ({error}). Save it so."
        ) from None
    series, labels, header = [], [], True
    labelled = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        if header:
            words = line.lower().split()
            header = words[0] != "@data"
            if words[:2] == ["@timestamps", "true"]:
                raise ValueError(
                    f"Received {path} with time stamps; expected plain values at equal steps. "
                    "Resample the series."
                )
            labelled |= words[0] in ("@classlabel", "@targetlabel") and words[1:2] == ["true"]
            continue
        channels = line.split(":")
        if labelled:
            labels.append(channels.pop().strip())
        series.append(
            [
                _numbers(channel.split(","), f"line {number}, channel {c}, step", None, path)
                for c, channel in enumerate(channels)
            ]
        )
    shapes = {len(sample) for sample in series}, {len(c) for sample in series for c in sample}
    if not series or max(map(len, shapes)) > 1:
        lengths = f"{min(shapes[1])} to {max(shapes[1])} steps" if series else "no samples"
        raise ValueError(
            f"Received {path} with {lengths} and {sorted(shapes[0])} channels; expected series of "
            "one length and one number of channels. Cut or pad them to one length."
        )
    found = {"x": np.swapaxes(np.asarray(series), 1, 2)}
    return {**found, "y": np.asarray(labels)} if labelled else found


_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".ts": _read_ts,
}


def _is_number(cell: str) -> bool:
    try:
        np.asarray([cell], dtype=np.float64)
    except ValueError:
        return False
    return True


def _numbers(cells: list[str], place: str, names: list[str] | None, path: Path) -> np.ndarray:
    cells = ["nan" if cell in ("", "?") else cell for cell in map(str.strip, cells)]
    try:
        return np.asarray(cells, dtype=np.float64)
    except ValueError:
        at = next(at for at, cell in enumerate(cells) if not _is_number(cell))
        raise ValueError(
            f"Received {cells[at]!r} at {place} {names[at] if names else at} of {path}; expected a "
            "number. Correct the cell, or leave it empty where the value is missing."
        ) from None


def _checked(found: Arrays, path: str) -> Arrays:
    """Brings series to `(N, T, F)` float64, and refuses what cannot be one."""
    checked = {}
    for name, array in found.items():
        if name.startswith("y"):
            checked[name] = array
            continue
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"Received `{name}` of type {array.dtype} in {path}; expected real numbers. "
                "Convert it."
            )
        if array.ndim not in (2, 3):
            raise ValueError(
                f"Received `{name}` of shape {array.shape} in {path}; expected (samples, steps) or "
                "(samples, steps, channels). Reshape it."
            )
        if 0 in array.shape:
            raise ValueError(
                f"Received `{name}` of shape {array.shape} in {path}; expected at least one "
                "sample, one step and one channel. Remove empty series."
            )
        checked[name] = array.reshape(*array.shape[:2], -1).astype(np.float64)
    for name in ("y", "y_test"):
        x = name.replace("y", "x")
        if name not in checked:
            continue
        if x not in checked or checked[name].ndim == 0 or len(checked[name]) != len(checked[x]):
            rows = len(checked[x]) if x in checked else "no"
            raise ValueError(
                f"Received `{name}` of shape {checked[name].shape} beside {rows} samples in `{x}` "
                f"in {path}; expected one target a sample. Make them the same length."
            )
    return checked
