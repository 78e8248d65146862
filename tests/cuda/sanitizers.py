"""Random calls of a kernel in a process of its own, under the address and undefined sanitizers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ember_keras.cuda import build

FLAGS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NAMES = ("libasan.so", "libstdc++.so")


def environment():
    """Return the environment in which Python can load what was compiled with `FLAGS`."""
    found = [
        subprocess.run(
            [*build.find_compiler(), f"-print-file-name={name}"], capture_output=True, text=True
        )
        for name in NAMES
    ]
    paths = [run.stdout.strip() for run in found]
    if not all(map(os.path.isabs, paths)):
        pytest.skip("the compiler has no address sanitizer")
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(paths),
        "ASAN_OPTIONS": "detect_leaks=0",
        "KERAS_BACKEND": "numpy",
        "PYTHONPATH": os.pathsep.join(places),
    }


def run(code, *arguments):
    """Run Python code; what the sanitizers find ends its process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
