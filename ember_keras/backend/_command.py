"""The command line's choice of backend, which must be made before Keras is imported.

Importing any module of the package imports the package first, and with it Keras. So the import
itself looks whether this process is the command `ember-keras`, follows its `--backend`, and tells a
user of the command in one line, not in a traceback, why a backend cannot be used.
"""

import os
import sys
from pathlib import Path

from ember_keras.backend import _activation, _installed
from ember_keras.config import environment

NAME = "ember-keras"
USABLE_ORDER = ("jax", "torch", "tensorflow", "mlx", "numpy")
"""Which backend the command takes where none is configured and Keras's default is missing."""


def arguments():
    """Return the arguments where this process is the command, else None."""
    if not sys.argv:
        return None
    if sys.argv[0] == "-m":  # So it is while Python looks for the module to run.
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return sys.argv[1:] if module in ("ember_keras", "ember_keras.__main__") else None
    return sys.argv[1:] if Path(sys.argv[0]).name in (NAME, f"{NAME}.exe") else None


def activate(given):
    """Choose the backend by the command's arguments and activate it; exit with 2 where it fails.

    What fails later in the import of the package, a broken library for one, is told the same way.
    """
    sys.excepthook = _tell
    try:
        _choose(requested(given))
        _activation.activate()
    except (ImportError, ValueError) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        if requested(given) is not None or given[:1] != ["doctor"]:
            raise SystemExit(2) from None
        _activate_another()


def _tell(kind, error, trace):
    """Stand for `sys.excepthook` while the package is imported."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(f"{NAME}: Interrupted.\n")
        sys.stderr.flush()
        os._exit(1)
    if not issubclass(kind, (ImportError, ValueError)):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"{NAME}: {error}\n")
    sys.stderr.flush()
    os._exit(2)


def _activate_another():
    """Let `doctor`, which is there to explain such an error, run under a backend that works."""
    name = next((key for key in USABLE_ORDER if _installed.installed()[key].usable), None)
    if name is None:
        raise SystemExit(2)
    environment.use_backend(name, "the installed backends")
    try:
        _activation.activate()
    except (ImportError, ValueError):
        raise SystemExit(2) from None
    sys.stderr.write(f"{NAME}: this report runs under {name}.\n")


def requested(given):
    """Return the last value of `--backend` among command line arguments, or None."""
    found = None
    for i, argument in enumerate(given):
        if argument == "--":
            break
        if argument == "--backend" and i + 1 < len(given):
            found = given[i + 1]
        elif argument.startswith("--backend="):
            found = argument.partition("=")[2]
    return found


def _choose(name):
    installed = _installed.installed()
    if name is not None:
        environment.use_backend(name, "--backend")
        if not installed[name].usable:
            usable = ", ".join(key for key, found in installed.items() if found.usable)
            raise ValueError(
                f"Received --backend {name}, which cannot run here: {installed[name].reason}. "
                f"Expected one of {usable}."
            )
    elif environment.backend_is_default() and not installed[environment.keras_backend()].usable:
        name = next((key for key in USABLE_ORDER if installed[key].usable), None)
        if name is None:
            reasons = "; ".join(f"{key}: {found.reason}" for key, found in installed.items())
            raise ImportError(f"No backend can run here. Install one. {reasons}.")
        environment.use_backend(name, "the installed backends")
        sys.stderr.write(f"{NAME}: KERAS_BACKEND is not set; using {name}.\n")
