"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
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
    new = target.with_name(f".{target.name[: -len(suffix)][:100]}-{secrets.token_hex(8)}{suffix}")
    done = False
    try:
        # Made here, so that it has the permissions of any new file, and fails before any work.
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(new)
        _sync(new)
        if mode is not None:
            new.chmod(mode)
        if overwrite:
            os.replace(new, target)
        else:
            _place(new, target)
        done = True
    except OSError as error:
        raise _explain(error, target) from error
    finally:
        if not (done and overwrite):
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
    with contextlib.suppress(OSError):  # Not every file system can sync a folder.
        _sync(target.parent)


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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(error: OSError, target: Path) -> OSError:
    reason = error.strerror or str(error)
    mend = "Check the folder and its permissions."
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        mend = "Free some space, or save to another disk."
    kept = (
        "The file that was there is unchanged." if target.exists() else "No file was left behind."
    )
    text = f"Cannot save to {target}: {reason}. {kept} {mend}"
    return type(error)(error.errno, text) if error.errno is not None else OSError(text)
