"""Opening a file that is not trusted: only a regular file, known by its first bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from ember_keras.models.saving.errors import LoadError

ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"
CHUNK = 1 << 20
DEFAULT_MAX_BYTES = 64 << 30
_SEAL = b"\nember_keras sha256 "
SEAL_BYTES = len(_SEAL) + 65
"""The length of the line after the end of a `.weights.h5`, which HDF5 does not read: the SHA-256
of all that precedes it."""


def open_file(path: str | os.PathLike[str], suffix: str, magic: bytes, max_bytes: int) -> BinaryIO:
    """Opens `path` for reading, where it is a regular file of the expected kind.

    Args:
        path: str or path-like, the file.
        suffix: str, how its name must end.
        magic: bytes, how the file must begin.
        max_bytes: int, the most bytes that it may have.

    Returns:
        The open file, at its beginning.
    """
    name = os.fspath(path)
    try:
        kind = os.stat(name).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Cannot load {name}: there is no such file. Expected the path of a `{suffix}` file on "
            "this machine; check the spelling and the current folder."
        ) from None
    if stat.S_ISDIR(kind):
        raise LoadError(
            name,
            f"it is a folder, expected a `{suffix}` file.",
            "Unzipped models and Orbax checkpoints are not loaded; save the model with "
            "`ember_keras.save_model(model, 'model.keras')`.",
        )
    if not stat.S_ISREG(kind):
        raise LoadError(name, f"it is not a regular file, expected a `{suffix}` file.")
    if not name.endswith(suffix):
        raise LoadError(
            name,
            f"its name does not end in `{suffix}`.",
            "Models are `.keras` files and weights alone are `.weights.h5` files; legacy `.h5` "
            "models, SavedModel, npz and pickle files are not loaded.",
        )
    file = open(name, "rb")  # noqa: SIM115 - handed to the caller, closed below on refusal
    try:
        _check_kind(file, name, suffix, magic, max_bytes)
    except BaseException:
        file.close()
        raise
    return file


def _check_kind(file: BinaryIO, name: str, suffix: str, magic: bytes, max_bytes: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise LoadError(name, "it is empty.", "It was never written: save the model again.")
    if size > max_bytes:
        raise LoadError(
            name,
            f"it has {size:,} bytes, expected at most {max_bytes:,}.",
            "If you trust it, pass a larger `max_bytes`.",
        )
    start = file.read(len(magic))
    file.seek(0)
    if start != magic:
        kinds = {ZIP: "a zip archive", HDF5: "an HDF5 file"}
        kind = kinds.pop(magic)
        # What else it holds is not said: a link may have led to any file of this machine.
        found = next(
            (text for known, text in kinds.items() if known[:4] == start[:4]), "other bytes"
        )
        raise LoadError(
            name,
            f"it begins with {found}, expected {kind}, which a `{suffix}` file is.",
            "It was renamed, damaged or cut: fetch or save it again.",
        )


def copy_checked(source: BinaryIO, target: Path, path: object) -> None:
    """Copies an open weights file to a private place, and checks its seal where it has one."""
    size = os.fstat(source.fileno()).st_size
    digest = hashlib.sha256()
    left = size - SEAL_BYTES
    with open(target, "xb") as copy:
        while left > 0 and (chunk := source.read(min(CHUNK, left))):
            digest.update(chunk)
            copy.write(chunk)
            left -= len(chunk)
        end = source.read()
        copy.write(end)
    if end.startswith(_SEAL) and end != seal(digest):
        raise LoadError(
            path,
            "its checksum does not match what it holds.",
            "It has changed since it was saved: fetch or save it again.",
        )


def seal(digest: hashlib._Hash) -> bytes:
    """The line that closes a weights file."""
    return _SEAL + digest.hexdigest().encode() + b"\n"


def write_sealed(path: Path, data: memoryview) -> None:
    """Writes the bytes of a weights file, and its seal."""
    digest = hashlib.sha256(data)
    with open(path, "wb") as file:
        file.write(data)
        file.write(seal(digest))
