"""What installing from source makes, with compilers that work and that do not."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from project.source import PACKAGE

pytestmark = pytest.mark.once

ROOT = PACKAGE.parent
NAME = "ember_keras/cuda/_fft_conv_cpu.so"
WITHOUT = "installing without the C++ kernel. All else works."


@pytest.fixture
def source(tmp_path):
    """A small copy of the source, with a compiler that writes a word for a library."""
    pytest.importorskip("setuptools")
    root = tmp_path / "source"
    (root / "ember_keras").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "ember_keras/__init__.py"):
        shutil.copy(ROOT / name, root / name)
    skipped = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(PACKAGE / "cuda", root / "ember_keras" / "cuda", ignore=skipped)
    (root / "works").write_text('#!/bin/sh\nfor out; do :; done\necho a kernel > "$out"\n')
    (root / "works").chmod(0o755)
    return root


def setup(root, compiler, *command):
    environment = {**os.environ, "CXX": compiler}
    for name in ("EMBER_CPU_KERNEL", "EMBER_CUDA", "PYTHONPATH"):
        environment.pop(name, None)
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", *command]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stderr.splitlines() if line.startswith("ember-keras:")]


def wheel(root, compiler):
    """Return the file name of a wheel, its members, and the lines that building it said."""
    said = setup(root, compiler, "bdist_wheel")
    [path] = (root / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        [about] = [archive.read(name).decode() for name in names if name.endswith("/WHEEL")]
    path.unlink()
    assert ("Root-Is-Purelib: true" in about) == path.name.endswith("-py3-none-any.whl")
    return path.name, names, said


def test_a_compiler_that_fails_leaves_no_kernel_of_an_earlier_build(source):
    name, members, said = wheel(source, str(source / "works"))
    assert NAME in members and not said
    assert "-py3-none-" in name and not name.endswith("-any.whl")
    for compiler, words in (("false", "failed: exit status 1"), ("true", "wrote no ")):
        name, members, said = wheel(source, compiler)
        assert NAME not in members and "ember_keras/cuda/build.py" in members
        assert name.endswith("-py3-none-any.whl")
        assert len(said) == 1 and words in said[0] and said[0].endswith(WITHOUT)


def test_an_editable_install_leaves_no_kernel_of_an_earlier_one(source):
    setup(source, str(source / "works"), "editable_wheel")
    assert (source / NAME).read_text() == "a kernel\n"
    [line] = setup(source, "false", "editable_wheel")
    assert "failed: exit status 1" in line and line.endswith(WITHOUT)
    assert not (source / NAME).exists()
