"""How the kernels are compiled and put into their folder, with compilers that do little or fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ember_keras.cuda import build, library

pytestmark = pytest.mark.once


def compiler(folder, body, name="compiler"):
    """A program that is called like a compiler; in `body`, `$out` is the file to write."""
    program = folder / name
    program.write_text(
        '#!/bin/sh\nfor out; do :; done\necho "$@" >> "$0.calls"\n'
        f'case "$*" in *-fsyntax-only*) exit 0;; esac\n{body}\n'
    )
    program.chmod(0o755)
    return str(program)


def test_a_library_that_is_replaced_stays_whole_where_it_is_open(tmp_path):
    """A process maps the file that it has loaded: new bytes in it would be new code."""
    (tmp_path / build.NAME).write_text("first")
    second = compiler(tmp_path, 'echo second > "$out"')
    with open(tmp_path / build.NAME) as loaded:
        assert build.build(tmp_path, second).exists()
        assert loaded.read() == "first"
    assert (tmp_path / build.NAME).read_text() == "second\n"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(f".{build.NAME}")]


LOADS = """
import sys
from ember_keras.cuda import build, library
build.HERE = build.pathlib.Path(sys.argv[1])
build.__file__ = sys.argv[1] + "/build.py"
library.load.cache_clear()
print(library.load()[1])
"""


def test_a_library_that_is_cut_short_is_not_loaded(tmp_path):
    kernel = library.load()[0]
    whole = Path(kernel.path).read_bytes() if kernel else b""
    if not whole.startswith(b"\x7fELF"):
        pytest.skip("There is no ELF file of the kernel.")
    for part in (40, 5000, len(whole) // 2, len(whole) - 1):
        (tmp_path / build.NAME).write_bytes(whole[:part])
        command = [sys.executable, "-c", LOADS, str(tmp_path)]
        environment = {**os.environ, "KERAS_BACKEND": "numpy"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (part, done.stderr)
        assert "is cut short. Install the package again." in done.stdout
    assert not library.is_cut_short(kernel.path)
