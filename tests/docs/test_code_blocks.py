"""Runs the code of README, docs and docstrings under the backend of this process."""

import subprocess
import sys

import pytest
from conftest import BACKEND
from docs.blocks import ROOT, blocks, docstrings, pages

TRAINS = (".fit(", "ember-keras train", "value_and_grad")


def skip_where_numpy_cannot(code):
    if BACKEND == "numpy" and any(word in code for word in TRAINS):
        pytest.skip("numpy predicts only")


PARTS = [page for page in pages() if page.parent.name in ("mixers", "models", "routers")]
OTHERS = [page for page in pages() if page not in PARTS]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PARTS, ids=name_of)
def test_page_of_a_part(page, tmp_path, monkeypatch):
    """These set nothing that outlives them, so they share a process."""
    monkeypatch.chdir(tmp_path)
    _run_here("\n".join(code for _, code in blocks(page.read_text(encoding="utf-8"))), page.name)


@pytest.mark.parametrize("page", OTHERS, ids=name_of)
def test_page(page, tmp_path):
    """The blocks of a page share a namespace, in a process and an empty folder of their own."""
    text = page.read_text(encoding="utf-8")
    script = ""
    for line, code in blocks(text):
        script += "\n" * (line - 1 - script.count("\n")) + code  # Errors name the page's line.
    skip_where_numpy_cannot(script)
    path = tmp_path / page.with_suffix(".py").name
    path.write_text(script, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, f"{page}\n{run.stdout}\n{run.stderr}"


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in docstrings()])
def test_docstring(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(code for _, code in blocks(text))
    _run_here(code, "docstring")


def _run_here(code, name):
    skip_where_numpy_cannot(code)
    exec(compile(code, name, "exec"), {"__name__": name})
