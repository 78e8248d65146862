"""The site builds without a warning, and documents every public symbol."""

import importlib
import inspect
import subprocess
import sys
import zlib

import pytest
from docs.blocks import ROOT

import ember_keras

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """The names that have an entry on an API page: those of the site's inventory."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    header, _, body = (site / "objects.inv").read_bytes().partition(b"using zlib.\n")
    assert header
    return {line.split()[0] for line in zlib.decompress(body).decode().splitlines()}


def public_symbols():
    for room in ember_keras.__all__:
        module = getattr(ember_keras, room)
        if not inspect.ismodule(module):
            yield f"ember_keras.{room}", module
            continue
        module = importlib.import_module(f"ember_keras.{room}")
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if isinstance(value, float | None):
                continue  # The constants of the array API standard, which the page names.
            yield f"ember_keras.{room}.{name}", value
            if room == "ops":
                yield f"ember_keras.ops.tensor.{name}", value
            if hasattr(value, "__qualname__"):
                yield f"{value.__module__}.{value.__qualname__}", value
            else:
                yield f"{type(value).__module__}.{name}", value


def test_every_public_symbol_has_an_entry(documented):
    """Under one of its names, where it has several."""
    names = {}
    for name, value in public_symbols():
        names.setdefault(id(value), set()).add(name)
    assert [aliases for aliases in names.values() if not aliases & documented] == []


def test_every_public_symbol_has_a_docstring():
    assert [
        name
        for name, value in public_symbols()
        if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value)
    ] == []
