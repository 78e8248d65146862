"""Files that are whole or not there, and run folders that never lose what was there before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ember_keras.models.saving.writing import write_whole
from ember_keras.pipelines.errors import InputError

MODEL = "model.keras"
CONFIG = "config.yaml"
DATA = "data.json"
HISTORY = "history.json"
METRICS = "metrics.json"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole, or leaves the one that was there as it was."""
    write_whole(path, path.suffix, True, lambda new: new.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    """Writes a UTF-8 file whole, or leaves the one that was there as it was."""
    write_bytes(path, content.encode("utf-8"))


class RunFolder:
    """The folder of one run, which takes its name only once there is a model in it.

    Until `publish`, the files go to a hidden folder beside it. So a run that fails before its first
    epoch leaves nothing behind, and with `overwrite` the run that was there stays until then.

    Args:
        output: Path. The folder that holds the runs; it is made where it is missing.
        name: str. Letters, digits, '.', '_' and '-'.
        overwrite: bool. Whether a run of that name may be replaced.
    """

    def __init__(self, output: Path, name: str, overwrite: bool = False):
        check_name(name)
        self.target = output / name
        self.overwrite = overwrite
        self._check_target()
        self._published = False
        self._made = [path for path in (output, *output.parents) if not path.exists()]
        try:
            output.mkdir(parents=True, exist_ok=True)
            self._staging = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=output))
            self._staging.chmod(0o777 & ~_umask())
        except OSError as error:
            raise InputError(
                f"The folder {output} cannot be written: {error.strerror}. Choose another one."
            ) from error

    @property
    def path(self) -> Path:
        """Where the files are now."""
        return self.target if self._published else self._staging

    @property
    def published(self) -> bool:
        """Whether the run stands under its name."""
        return self._published

    def save_model(self, save: Callable[[Path], None]) -> None:
        """Saves the model into the folder, and publishes it."""
        save(self.path / MODEL)
        self.publish()

    def publish(self) -> None:
        """Gives the folder its name; a run that was there is removed after that, not before."""
        if self._published:
            return
        self._check_target()
        old = None
        if self.target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{self.target.name}.", dir=self.target.parent))
            os.replace(self.target, old)
        try:
            os.rename(self._staging, self.target)
        except OSError:
            if old is not None:
                os.replace(old, self.target)
            raise
        self._published = True
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Removes what was never published, and the folders that were made for it."""
        if self._published:
            return
        shutil.rmtree(self._staging, ignore_errors=True)
        with contextlib.suppress(OSError):  # Another run has come into one of them.
            for path in self._made:
                path.rmdir()

    def _check_target(self) -> None:
        if not self.target.exists() and not self.target.is_symlink():
            return
        if not self.overwrite:
            raise InputError(
                f"{self.target} exists, and a run is never overwritten unasked. Give this one "
                "another name with --set name=NAME, or replace the old one with --overwrite."
            )
        if self.target.is_symlink() or not (self.target / CONFIG).is_file():
            raise InputError(
                f"{self.target} exists and is no run folder (there is no {CONFIG} in it), so it is "
                "not replaced. Choose another name."
            )


def check_name(name: str) -> None:
    """Refuses a run name that would be a path."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"Received the run name {name!r}; expected letters, digits, '.', '_' and '-', at most "
            "100. The folder it goes into is chosen with --output."
        )


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
