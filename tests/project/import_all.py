"""Imports every module of the installed package, each in a process of its own.

A module named after a library may ask for that library, and for nothing else. Needs no pytest, so
that it runs where only the core dependencies are installed.
"""

import importlib
import os
import sys
import traceback
from pathlib import Path

import keras  # once, before the processes split

LIBRARIES = {"aeon", "jax", "keras_mlx", "matplotlib", "mlx", "tensorflow", "torch"}


def modules():
    root = Path(importlib.util.find_spec("ember_keras").origin).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def attempt(module):
    """Returns 0 where the import works, 2 where a library it is named after is missing, else 1."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in LIBRARIES and error.name.removeprefix("keras_") in module:
            print(f"{module}: needs {error.name}")
            return 2
        traceback.print_exc()
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main():
    found = sorted(name for name in LIBRARIES if importlib.util.find_spec(name))
    print(f"Python {sys.version.split()[0]}, Keras {keras.__version__}, {keras.backend.backend()}")
    print(f"optional libraries here: {', '.join(found) or 'none'}")
    statuses = []
    for module in modules():
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = attempt(module)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if statuses[-1] not in (0, 2):
            print(f"{module}: failed")
    failed = sum(status not in (0, 2) for status in statuses)
    print(f"{statuses.count(0)} modules import, {statuses.count(2)} need a library, {failed} fail")
    return 1 if failed else 0


sys.exit(main())
