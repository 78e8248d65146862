"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path


def write_whole(
    path: str | os.PathLike[str], suffix: str, overwrite: bool, write: Callable[[Path], object]
) -> None:
    """Lets `write` fill a new file beside `path`, and puts it in the place of `path` when complete.

    Whatever goes wrong on the way, a full disk or Ctrl-C among it, `path` is left as it was and the
    new file is removed.

    Args:
        path: str or path-like, the file to write.
        suffix: str, how its name must end.
        overwrite: bool, whether a file that is there already may be replaced.
        write: callable, takes the path of the new file.
    """
    target = _check_target(path, suffix, overwrite)
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    with hidden(target, suffix) as new:
        _write(new, target, mode, overwrite, write)


def _write(
    new: Path, target: Path, mode: int | None, overwrite: bool, write: Callable[[Path], object]
) -> None:
    done = False
    try:
        # Made here, so that it has the permissions of any new file, and fails before any work.
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(new)
        sync(new)
        if mode is not None:
            new.chmod(mode)
        if overwrite:
            os.replace(new, target)
        else:
            _place(new, target)
        done = True
    except OSError as error:
        raise explain(error, target) from error
    finally:
        if not (done and overwrite):
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
    sync_folder(target.parent)


@contextlib.contextmanager
def hidden(target: Path, suffix: str) -> Iterator[Path]:
    """The hidden name beside `target` under which it is written, with this host and process in it.

    What a killed process left there of its own writing of `target` is removed first.

    Args:
        target: Path, what is to be written.
        suffix: str, how the hidden name ends; `.partial` is that of a folder.
    """
    stem = target.name.removesuffix(suffix)[:100]
    _remove_left(target.parent, stem, suffix)
    new = target.parent / f".{stem}-{_host()}-{os.getpid()}-{secrets.token_hex(8)}{suffix}"
    _written.add(new.name)
    try:
        yield new
    finally:
        _written.discard(new.name)


_written: set[str] = set()
"""What this process writes now. A hidden name with its number that is not here is of another, dead
process that had that number."""


@functools.cache
def _host() -> str:
    """This machine and, in a container, the container, whose numbers of processes are its own."""
    parts = [platform.node().encode()]
    with contextlib.suppress(OSError):  # Linux alone has these two.
        parts.append(Path("/etc/machine-id").read_bytes())
    with contextlib.suppress(OSError):
        parts.append(os.fsencode(os.readlink("/proc/self/ns/pid")))
    return hashlib.sha256(b" ".join(parts)).hexdigest()[:8]


def _remove_left(folder: Path, stem: str, suffix: str) -> None:
    """Removes what processes of this host that are no more left half-written."""
    if os.name != "posix":
        return  # Elsewhere Python cannot ask for a process without a signal to it.
    left = re.compile(
        rf"\.{re.escape(stem)}-{_host()}-([1-9]\d{{0,9}})-[0-9a-f]{{16}}{re.escape(suffix)}"
    )
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            found = left.fullmatch(name)
            if found and name not in _written and not _lives(int(found[1])):
                _remove(folder / name)


def _lives(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # Of another user, or none that can be asked for.
        pass
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_target(path: str | os.PathLike[str], suffix: str, overwrite: bool) -> Path:
    target = Path(os.fspath(path))
    if not target.name.endswith(suffix) or target.name == suffix:
        raise ValueError(
            f"Received the path {str(target)!r}, expected a name that ends in `{suffix}`. Models "
            "are saved as `.keras` files, and weights alone as `.weights.h5` files."
        )
    if "://" in str(path):
        raise ValueError(
            f"Received the address {str(path)!r}, expected a path on this machine. Save to a local "
            "file first, then upload it."
        )
    target = Path(os.path.realpath(target))  # A link keeps pointing at the file that it names.
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"Cannot save to {target}: the folder {target.parent} does not exist. Make it first."
        )
    if target.is_dir():
        raise IsADirectoryError(
            f"Cannot save to {target}: it is a folder. Give the name of a file."
        )
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"Cannot save to {target}: the file exists. Pass `overwrite=True` to replace it, or "
            "choose another name."
        )
    return target


def _place(new: Path, target: Path) -> None:
    """Renames a file, unless another came to its new name meanwhile."""
    try:
        os.link(new, target)  # Fails where the name is taken, as a rename does not.
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP) or target.exists():
            raise
        os.replace(new, target)  # A file system without links.


def sync(path: Path) -> None:
    """Waits until a file is on the disk, so that a power cut after its renaming finds it whole."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk, where the file system can do so."""
    with contextlib.suppress(OSError):
        sync(path)


def explain(error: OSError, target: Path) -> OSError:
    """The error of a file or folder that cannot be written: where, why, and how to mend it."""
    reason = error.strerror or str(error)
    mend = "Check the folder and its permissions."
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        mend = "Free some space, or save to another disk."
    kept = (
        "The file that was there is unchanged." if target.is_file() else "No file was left behind."
    )
    text = f"Cannot save to {target}: {reason}. {kept} {mend}"
    return type(error)(error.errno, text) if error.errno is not None else OSError(text)
