"""How the kernels are compiled and put into their folder, with compilers that do little or fail."""

import os
import subprocess
import sys
from importlib.util import find_spec
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
from importlib.util import find_spec
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


def test_the_compiler_may_be_named_with_options(tmp_path, monkeypatch):
    name = compiler(tmp_path, 'echo made > "$out"', "some compiler")
    assert build.find_compiler(name) == (name,)
    monkeypatch.setenv("CXX", f"'{name}' -O1 --flag='two words'")
    assert build.find_compiler() == (name, "-O1", "--flag=two words")
    build.build(tmp_path)
    calls = Path(f"{name}.calls").read_text().splitlines()
    assert all(call.startswith("-O1 --flag=two words -") for call in calls)
    monkeypatch.setenv("CXX", "c++ 'unbalanced")
    with pytest.raises(build.BuildError, match="CXX=c.. 'unbalanced can't be read as a command"):
        build.build(tmp_path)


@pytest.mark.parametrize("command", (["build.py"], ["-m", "ember_keras.cuda", "mlx"]), ids=str)
def test_commands_that_build_use_the_compiler_that_is_named(command, tmp_path):
    if command == ["build.py"]:
        command = [build.__file__]
    elif not (find_spec("mlx") and find_spec("nanobind")):
        pytest.skip("mlx and nanobind are not installed.")
    failing = compiler(tmp_path, "exit 3")
    environment = {**os.environ, "KERAS_BACKEND": "numpy", "CXX": failing}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f" was not built: {failing} failed: exit status 3.\n")


def test_a_compiler_that_fails_or_makes_nothing(tmp_path):
    bodies = {
        "exit 7": "failed: exit status 7",
        "echo a note >&2; echo the error: odd >&2; exit 1": "failed: the error: odd",
        "exit 0": r"wrote no \w+.o",
    }
    for body, words in bodies.items():
        with pytest.raises(build.BuildError, match=words):
            build.build(tmp_path, compiler(tmp_path, body))
    assert not (tmp_path / build.NAME).exists()
