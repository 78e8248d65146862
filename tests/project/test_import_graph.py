"""Imports point one way, and nothing lies about unused."""

import ast

import pytest
from project.source import PACKAGE, ROOT, dynamic_imports, imports, modules, room

pytestmark = pytest.mark.once

# From left to right; a room imports rooms to its right, and those beside it that it names here.
ROOMS = (
    ("", "__main__"),
    ("cli",),
    ("pipelines", "tasks"),
    ("callbacks", "distribution"),
    ("interop",),
    ("models",),
    ("blocks",),
    ("layers",),
    ("ops",),
    ("cuda",),
    ("backend",),
)
ANYONE_MAY_IMPORT = {"config", "registry"}
BESIDE = {("pipelines", "tasks"), ("__main__", ""), ("registry", "config")}
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
ENTRY_POINTS = {"ember_keras.__main__", "ember_keras.cli.main", "ember_keras.cuda.__main__"}


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module):
    here = room(module)
    assert here in RANK or here in ANYONE_MAY_IMPORT, f"give {here!r} its place in ROOMS"
    for imported in imports(modules()[module], modules()):
        there = room(imported)
        if there == here or (here, there) in BESIDE or there == "" == imported.partition(".")[2]:
            continue
        if there in ANYONE_MAY_IMPORT and here not in ANYONE_MAY_IMPORT:
            continue
        assert here in RANK and there in RANK, f"{module} must not import {imported}"
        assert RANK[here] < RANK[there], f"{module} must not import {imported}"


def test_no_module_is_imported_by_nobody():
    known = modules()
    used = set(ENTRY_POINTS)
    for name, tree in known.items():
        used.update({*imports(tree, known), *dynamic_imports(name, known)} - {name})
    for path in (ROOT / "tests").rglob("*.py"):  # A reference is imported by its tests alone.
        found = imports(ast.parse(path.read_text(encoding="utf-8")), known)
        used.update(name for name in found if name.endswith(".naive"))
    packages = {name.rpartition(".")[0] for name in used}
    assert sorted(set(known) - used - packages) == []


def test_every_folder_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
