"""Tensors in `*.safetensors`: read some rows at a time, and written in shards.

The `safetensors` package parses the files and refuses overlaps, gaps, and offsets or shapes that
lie; here are the limits around it, and the index of several files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ember_keras.config.shown import escaped, shown
from ember_keras.models.pretrained.folder import CHECKPOINT, DISTRUST, FETCH, Folder, needs
from ember_keras.models.saving.errors import LoadError
from ember_keras.models.saving.plain_json import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
MAX_HEADER_BYTES = 16 << 20
MAX_SHARDS = 512
PART = 1 << 20
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,200}\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "Run `git lfs pull` in that folder."),
    (b"PK\x03\x04", "a zip archive, as `torch.save` writes", "It may hold pickles: not loaded."),
    (b"\x80", "a pickle", "Pickles run code and are never loaded."),
    (b"\x89HDF", "an HDF5 file", "Save the model as safetensors."),
)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor is, and what it is like.

    Args:
        file: str, the name of its file.
        start: int, the byte of the file at which its values begin.
        shape: tuple of int.
        dtype: numpy dtype.
    """

    file: str
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Checkpoint:
    """The tensors of a folder by name, each checked against its file before any is read.

    Args:
        folder: Folder.
        max_bytes: int, the most bytes that its files may have together.
    """

    def __init__(self, folder: Folder, max_bytes: int):
        self.folder = folder
        self.tensors: dict[str, Stored] = {}
        self.paths: dict[str, Path] = {}
        self._open: dict[str, io.BufferedReader] = {}
        self._seen: dict[str, tuple[int, ...]] = {}
        mapped = _index(folder)
        for name in sorted({SINGLE} if mapped is None else set(mapped.values())):
            self.paths[name] = folder.file(
                name, max_bytes, "If you trust it, pass a larger `max_bytes`."
            )
            max_bytes -= self.paths[name].stat().st_size
        for name in self.paths:
            self._read_header(name)
        if mapped is not None:
            self._check_index(mapped)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Keeps the files open while tensors are read."""
        with contextlib.ExitStack() as stack:
            try:
                for name, path in self.paths.items():
                    # Not mapped into memory: what is held is what was asked for alone, and a file
                    # that is cut short meanwhile is an error, not a crash.
                    self._open[name] = file = stack.enter_context(open(path, "rb"))
                    if _identity(file) != self._seen[name]:
                        raise self._changed(name)
                yield
            finally:
                self._open.clear()

    def read(self, name: str) -> np.ndarray:
        """The values of a tensor."""
        stored = self.tensors[name]
        return self._values(stored, stored.start, stored.shape)

    def rows(self, name: str) -> Iterator[tuple[slice, np.ndarray]]:
        """The rows of a tensor, about `PART` numbers of them at a time, and which they are."""
        stored = self.tensors[name]
        count, *row = stored.shape
        numbers = math.prod(row)
        step = max(1, PART // max(1, numbers))
        for at in range(0, count, step):
            end = min(at + step, count)
            start = stored.start + at * numbers * stored.dtype.itemsize
            yield slice(at, end), self._values(stored, start, (end - at, *row))

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors hold the same numbers; they are read a part at a time."""
        if self.tensors[name].shape != self.tensors[other].shape:
            return False
        pairs = zip(self.rows(name), self.rows(other), strict=True)
        return all(np.array_equal(one, two) for (_, one), (_, two) in pairs)

    def _values(self, stored: Stored, start: int, shape: tuple[int, ...]) -> np.ndarray:
        found = np.empty(math.prod(shape) * stored.dtype.itemsize, "uint8")
        file = self._open[stored.file]
        file.seek(start)
        if file.readinto(found.data) != found.size:
            raise self._changed(stored.file)
        return found.view(stored.dtype).reshape(shape)

    def _changed(self, file: str) -> LoadError:
        return LoadError(self.paths[file], "it has changed while it was read.", FETCH)

    def _read_header(self, file: str) -> None:
        path = self.paths[file]
        header, start, self._seen[file] = _check_header(path)
        with _safe_open(path) as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                part = opened.get_slice(name)
                shape, dtype = tuple(part.get_shape()), DTYPES.get(part.get_dtype())
                if name in self.tensors:
                    raise LoadError(
                        path,
                        f"the tensor {shown(name)} is in `{self.tensors[name].file}` too.",
                        DISTRUST,
                    )
                if dtype is None:
                    raise LoadError(
                        path,
                        f"the tensor {shown(name)} has the dtype {part.get_dtype()}, expected one "
                        f"of {', '.join(DTYPES)}.",
                        "Quantized checkpoints are not loaded: fetch the model as it was trained.",
                    )
                begin = start + header[name]["data_offsets"][0]
                self.tensors[name] = Stored(file, begin, shape, dtype)

    def _check_index(self, mapped: dict[str, str]) -> None:
        where = {name: stored.file for name, stored in self.tensors.items()}
        for name in sorted({*where, *mapped}):
            if where.get(name) != mapped.get(name):
                raise LoadError(
                    self.folder.path / INDEX,
                    f"the tensor {shown(name)} is in {where.get(name, 'no file')}, and the index "
                    f"says {mapped.get(name, 'nothing of it')}.",
                    FETCH,
                )


def _index(folder: Folder) -> dict[str, str] | None:
    """Which file each tensor is in, or None where there is one file."""
    if SINGLE in folder and INDEX in folder:
        raise LoadError(
            folder.path, f"it has both `{SINGLE}` and `{INDEX}`.", "Remove the one that is old."
        )
    if SINGLE in folder:
        return None
    if INDEX not in folder:
        pickles = [name for name in folder.names if name.endswith(_PICKLES)]
        hint = "Fetch the safetensors of this model."
        if pickles:
            hint = (
                f"`{escaped(pickles[0])}` is a pickle, which runs code, and is never loaded: fetch "
                "the safetensors of this model, or convert it where you trust it."
            )
        raise LoadError(folder.path, f"neither `{SINGLE}` nor `{INDEX}` is in it.", hint)
    mapped = folder.json(INDEX).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise LoadError(folder.path / INDEX, "the key `weight_map` has no tensors.", FETCH)
    for name, file in mapped.items():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise LoadError(
                folder.path / INDEX,
                f"it says that {shown(name)} is in {shown(file)}, expected the plain name "
                "of a `.safetensors` file of this folder.",
                DISTRUST,
            )
    shards = len(set(mapped.values()))
    if shards > MAX_SHARDS:
        raise LoadError(
            folder.path / INDEX,
            f"it names {shards} files, expected at most {MAX_SHARDS}.",
            DISTRUST,
        )
    return mapped


def _identity(file: io.BufferedReader) -> tuple[int, ...]:
    """What another file, or one that was written to, has otherwise."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_header(path: Path) -> tuple[dict[str, Any], int, tuple[int, ...]]:
    """Refuses what is no safetensors file, and a long header or one with a name twice.

    Returns:
        The header, the byte after it, and the `_identity` of the file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(32)
        for magic, kind, hint in _KINDS:
            if start.startswith(magic) and start[8:9] != b"{":
                raise LoadError(path, f"it is {kind}, expected safetensors.", hint)
        if size < 10:
            raise LoadError(path, f"it has {size} bytes, too few for safetensors.", FETCH)
        (length,) = struct.unpack_from("<Q", start)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise LoadError(
                path,
                f"it declares a header of {length:,} bytes, expected at most "
                f"{min(MAX_HEADER_BYTES, size - 8):,}.",
                "It is cut short or no safetensors file: fetch it again, or do not trust it.",
            )
        file.seek(8)
        header = read_json(file.read(length), path, "header", FETCH, CHECKPOINT)
        return header, 8 + length, _identity(file)


@contextlib.contextmanager
def _safe_open(path: Path) -> Iterator[Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise needs("safetensors") from None
    try:
        # Not mapped into memory: a file that is cut short meanwhile is an error, not a crash.
        opened = safe_open(path, framework="np", backend="pread")
    except SafetensorError as error:
        raise LoadError(path, f"it is no valid safetensors file ({error}).", FETCH) from None
    with opened as file:
        try:
            yield file
        except SafetensorError as error:
            raise LoadError(path, f"it cannot be read ({error}).", FETCH) from None


def _system_error(error: Exception) -> OSError:
    """The error of the system that `safetensors` tells of in words."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def write(
    folder: Path, shapes: dict[str, int], tensors: Iterable[tuple[str, np.ndarray]], shard: int
) -> None:
    """Writes tensors into a folder, in one file, or in several and an index.

    Args:
        folder: Path, an empty folder.
        shapes: dict, the bytes of each tensor by name, in the order of `tensors`.
        tensors: pairs of name and array.
        shard: int, the most bytes of tensors that a file has, unless one alone is larger.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ImportError:
        raise needs("safetensors") from None
    plan: list[list[str]] = [[]]
    room = shard
    for name, size in shapes.items():
        if size > room and plan[-1]:
            plan.append([])
            room = shard
        plan[-1].append(name)
        room -= size
    files = [SINGLE]
    if len(plan) > 1:
        files = [f"model-{i + 1:05d}-of-{len(plan):05d}.safetensors" for i in range(len(plan))]
    given = iter(tensors)
    for names, file in zip(plan, files, strict=True):
        held = {}
        for _ in names:
            name, array = next(given)
            held[name] = np.ascontiguousarray(array)
        try:
            save_file(held, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise _system_error(error) from error
    if len(plan) > 1:
        places = {name: file for names, file in zip(plan, files, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(shapes.values())}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
