"""The checks of a `.keras` file as a zip archive, before any of it is believed."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from ember_keras.models.saving import files
from ember_keras.models.saving.errors import BROKEN_FILE, DAMAGED, LoadError
from ember_keras.models.saving.plain_json import read_json

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
MAX_MEMBERS = 1000
MAX_DIRECTORY_BYTES = 1 << 20
MAX_JSON_BYTES = 32 << 20
MAX_ASSET_BYTES = 256 << 20
MAX_RATIO = 100
_ASSET = re.compile(r"assets(/[A-Za-z0-9_][A-Za-z0-9_.\-]{0,200}){1,16}")
_DISTRUST = "Keras never writes such a file: do not trust it."


class Archive:
    """A `.keras` file whose members were checked; it reads each of them once.

    Args:
        file: the open file.
        path: str or path-like, its name in errors.
        max_bytes: int, the most bytes that its members may have together when unpacked.
    """

    def __init__(self, file: BinaryIO, path: str | os.PathLike[str], max_bytes: int):
        self.path = path
        with self._damage("the archive"):
            _check_directory_size(file, path)
            self._zip = zipfile.ZipFile(file)
            self._members = self._check(file, max_bytes)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *details: Any) -> None:
        self._zip.close()

    def config(self) -> Any:
        """The model's configuration, as plain data."""
        return read_json(self._bytes(CONFIG), self.path, CONFIG)

    def metadata(self) -> dict[str, Any]:
        """Who saved the model: the version of Keras and the date."""
        found = read_json(self._bytes(METADATA), self.path, METADATA)
        version = found.get("keras_version") if isinstance(found, dict) else None
        if not isinstance(version, str) or not re.fullmatch(r"3\.\d+[\w.+\-]{0,40}", version):
            raise LoadError(
                self.path,
                f"`{METADATA}` gives the Keras version {version!r}, expected 3.x.",
                "Load it with the Keras that saved it, and save it again with Keras 3.",
            )
        return found

    def assets(self) -> list[str]:
        """The names of the files that layers keep beside their weights, such as vocabularies."""
        return [name for name in self._members if name.startswith("assets/")]

    def extract(self, name: str, target: Path) -> None:
        """Unpacks one member to a new file."""
        info = self._members[name]
        with self._damage(f"`{name}`"):
            left = info.file_size
            with self._zip.open(info) as source, open(target, "xb") as copy:
                while chunk := source.read(files.CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        break
                    copy.write(chunk)
        if left:
            raise LoadError(self.path, f"`{name}` is not as long as it declares.", DAMAGED)

    def _bytes(self, name: str) -> bytes:
        info = self._members[name]
        with self._damage(f"`{name}`"), self._zip.open(info) as source:
            data = source.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise LoadError(self.path, f"`{name}` is not as long as it declares.", DAMAGED)
        return data

    def _check(self, file: BinaryIO, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise LoadError(
                self.path,
                f"it has {len(infos):,} members, expected at most {MAX_MEMBERS}.",
                _DISTRUST,
            )
        members: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in infos:
            self._check_name(info, members)
            self._check_member(info)
            members[info.filename] = info
            total += info.file_size
        for name in (CONFIG, METADATA, WEIGHTS):
            if name not in members:
                raise LoadError(
                    self.path,
                    f"the member `{name}` is missing; it has {', '.join(members) or 'none'}.",
                    DAMAGED,
                )
        if total > max_bytes:
            raise LoadError(
                self.path,
                f"its members declare {total:,} bytes together, expected at most {max_bytes:,}.",
                "If you trust it, pass a larger `max_bytes`.",
            )
        _check_places(file, infos, self._zip.start_dir, self.path)
        return members

    def _check_name(self, info: zipfile.ZipInfo, members: dict[str, zipfile.ZipInfo]) -> None:
        # `orig_filename` is the name as stored: zipfile cuts `filename` at a NUL byte.
        name = info.orig_filename
        if info.filename in members or name.lower() in {known.lower() for known in members}:
            raise LoadError(self.path, f"the member {name!r} stands twice in it.", _DISTRUST)
        if name not in (CONFIG, METADATA, WEIGHTS) and not _ASSET.fullmatch(name):
            hint = _DISTRUST
            if name.endswith(".npz"):
                hint = (
                    "Weights are read from HDF5 alone: save the model again with Keras's default."
                )
            raise LoadError(
                self.path,
                f"it has the member {name!r}, expected only `{CONFIG}`, `{METADATA}`, `{WEIGHTS}` "
                "and files under `assets/`.",
                hint,
            )

    def _check_member(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        mode = info.external_attr >> 16
        if info.is_dir() or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
            raise LoadError(
                self.path, f"the member {name!r} is a link or a folder, expected a file.", _DISTRUST
            )
        if (
            info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            or info.flag_bits & 0x61
        ):
            raise LoadError(
                self.path,
                f"the member {name!r} is encrypted or packed in an unusual way, expected plain "
                "storage or deflate.",
                _DISTRUST,
            )
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise LoadError(self.path, f"the member {name!r} declares two sizes.", _DISTRUST)
        limit = MAX_JSON_BYTES if name in (CONFIG, METADATA) else None
        limit = MAX_ASSET_BYTES if name.startswith("assets/") else limit
        if limit and info.file_size > limit:
            raise LoadError(
                self.path,
                f"{name!r} declares {info.file_size:,} bytes, expected {limit:,} at most.",
                _DISTRUST,
            )
        if info.file_size > MAX_RATIO * max(info.compress_size, 1000):
            raise LoadError(
                self.path,
                f"the member {name!r} unpacks {info.compress_size:,} bytes to {info.file_size:,}, "
                f"expected at most {MAX_RATIO} times as many.",
                "It is a decompression bomb: do not trust it.",
            )

    @contextlib.contextmanager
    def _damage(self, what: str) -> Any:
        """Turns what zipfile raises into a `LoadError`."""
        try:
            yield
        except LoadError:
            raise
        except BROKEN_FILE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, f"Cannot load {self.path}: {error}") from error
            raise LoadError(self.path, f"{what} cannot be read ({error}).", DAMAGED) from error


def _check_directory_size(file: BinaryIO, path: object) -> None:
    """Refuses an archive whose table of contents alone would fill the memory."""
    size = os.fstat(file.fileno()).st_size
    tail_at = max(size - (1 << 16) - 200, 0)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        raise LoadError(
            path, "it is cut short: the table at the end of the archive is missing.", DAMAGED
        )
    _, _, _, count, length, start, _ = struct.unpack_from("<HHHHIIH", tail, end + 4)
    locator = tail.rfind(b"PK\x06\x07", 0, end)
    if locator >= 0:
        (record_at,) = struct.unpack_from("<Q", tail, locator + 8)
        if record_at < tail_at or record_at - tail_at > len(tail) - 56:
            raise LoadError(path, "its table of contents is in an unusual place.", _DISTRUST)
        count, length, start = struct.unpack_from("<QQQ", tail, record_at - tail_at + 32)
    if length > MAX_DIRECTORY_BYTES or count > MAX_MEMBERS:
        raise LoadError(
            path,
            f"its table of contents has {count:,} entries and {length:,} bytes, expected at most "
            f"{MAX_MEMBERS:,} and {MAX_DIRECTORY_BYTES:,}.",
            _DISTRUST,
        )
    file.seek(0)


def _check_places(
    file: BinaryIO, infos: list[zipfile.ZipInfo], directory_at: int, path: object
) -> None:
    """Refuses members that overlap, which would unpack the same bytes many times over."""
    at = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < at or (at == 0 and info.header_offset):
            raise LoadError(path, f"the member {info.filename!r} overlaps another.", _DISTRUST)
        file.seek(info.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != files.ZIP:
            raise LoadError(path, f"the member {info.filename!r} has no header.", DAMAGED)
        name, extra = struct.unpack_from("<HH", header, 26)
        at = info.header_offset + 30 + name + extra + info.compress_size
        if at > directory_at:
            raise LoadError(path, f"the member {info.filename!r} is cut short.", DAMAGED)
    file.seek(0)
