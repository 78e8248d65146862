"""A folder that is not trusted: only regular files inside it, by plain names, of bounded size."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from ember_keras.config.shown import shown
from ember_keras.models.saving.errors import LoadError
from ember_keras.models.saving.plain_json import read_json

MAX_JSON_BYTES = 16 << 20
FETCH = "The file is damaged or was cut short: fetch it again."
CHECKPOINT = "checkpoint of a model"
DISTRUST = "No tool writes such a file: do not trust it."
LINKS = (
    "Fetch the files themselves, or pass `follow_links=True` for a folder that you trust, such as "
    "one of the Hugging Face cache."
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,200}")


class Folder:
    """The files of a checkpoint.

    Args:
        path: str or path-like, the folder.
        follow_links: bool, whether a file may be a link, to anywhere.
    """

    def __init__(self, path: str | os.PathLike[str], follow_links: bool = False):
        self.path = Path(path)
        self.follow_links = follow_links
        if not self.path.exists():
            raise FileNotFoundError(
                f"Cannot load {path}: there is no such folder. Expected a folder on this machine "
                "with `config.json` and `*.safetensors`; nothing is fetched from the network."
            )
        if not self.path.is_dir():
            raise LoadError(
                path,
                "it is a file, expected a folder with `config.json` and `*.safetensors`.",
                "Pass the folder that holds it.",
            )
        self.names = sorted(os.listdir(self.path))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def file(self, name: str, max_bytes: int, mend: str = DISTRUST) -> Path:
        """The path of a file of this folder, once it is known to be a regular one.

        Args:
            name: str, a plain name, without folders.
            max_bytes: int, the most bytes that it may have.
            mend: str, what to do where it has more.
        """
        path = self.path / name
        if not _NAME.fullmatch(name):
            raise LoadError(
                self.path, f"it names the file {shown(name)}, expected a plain name.", DISTRUST
            )
        if name not in self.names:
            raise LoadError(self.path, f"the file `{name}` is missing.", "Fetch it again.")
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and not self.follow_links:
            raise LoadError(path, "it is a link, expected a file.", LINKS)
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise LoadError(path, "it is not a regular file.", DISTRUST)
        if found.st_size > max_bytes:
            raise LoadError(
                path,
                f"it has {found.st_size:,} bytes, expected at most {max_bytes:,}.",
                mend,
            )
        return path

    def data(self, name: str, max_bytes: int = MAX_JSON_BYTES) -> bytes:
        """The bytes of a small file."""
        path = self.file(name, max_bytes)
        with open(path, "rb") as file:
            found = file.read(max_bytes + 1)
        if len(found) > max_bytes:
            raise LoadError(path, f"it has more than {max_bytes:,} bytes.", DISTRUST)
        return found

    def json(self, name: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
        """The JSON object that a file holds."""
        found = read_json(self.data(name, max_bytes), self.path / name, name, FETCH, CHECKPOINT)
        if not isinstance(found, dict):
            raise LoadError(
                self.path / name, f"it holds a {type(found).__name__}, expected an object.", FETCH
            )
        return found


def needs(package: str) -> ImportError:
    """The error where an optional package is not installed."""
    return ImportError(
        f"Pretrained checkpoints need the package `{package}`, which is not installed. Run "
        "`pip install 'ember-keras[pretrained]'`."
    )
