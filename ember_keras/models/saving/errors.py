"""The one error of loading, and the exceptions that a broken file makes Keras and h5py raise."""

from __future__ import annotations

import sys
import zipfile
import zlib

from ember_keras.config.shown import message


class LoadError(ValueError):
    """A file that cannot be loaded, or may not be.

    Its text says which file it is, what was found in it, what was expected, and how to mend it.

    Args:
        path: str or path-like. The file.
        problem: str. What was found, and what was expected instead.
        mend: str. What to do about it.

    Example:

    ```python
    import ember_keras as ek

    try:
        model = ek.load_model("downloaded.keras")
    except (ek.models.LoadError, OSError) as error:
        print(f"Starting afresh. {error}")
    ```
    """

    def __init__(self, path: object, problem: str, mend: str = ""):
        self.path = str(path)
        self.problem = message(problem)
        self.mend = mend
        super().__init__(f"Cannot load {self.path}: {self.problem}{' ' if mend else ''}{mend}")


DAMAGED = "The file is damaged or was not written by Keras: fetch or save it again."

BROKEN_FILE = (
    OSError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and h5py raise on a file that is damaged."""


def broken_config() -> tuple[type[BaseException], ...]:
    """What building a component raises where its configuration makes no sense."""
    found: tuple[type[BaseException], ...] = (
        ArithmeticError,
        AssertionError,
        AttributeError,
        ImportError,
        NameError,
        *BROKEN_FILE,
    )
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        found += (tensorflow.errors.OpError,)
    return found
