"""Reads the source tree: its modules, and who imports whom."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ember_keras"


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules():
    """Every module of the package by its dotted name, as a syntax tree."""
    return {
        module_name(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(tree, known):
    """The modules of the package that `tree` imports: names out of `known`."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name:
                yield name


def room(module):
    """The first folder or file below the package; the package itself is a room of its own."""
    return (module.split(".") + [""])[1]


def dynamic_imports(module, known):
    """The modules that `module` may import by a name it computes.

    A computed name is `f"{__name__}.{x}"` or `f"ember_keras.backend._{x}"`, or a plain string; the
    values of `x` are looked for among the strings of the module.
    """
    strings, templates = {"numpy", "torch", "jax", "tensorflow", "mlx"}, set()
    for node in ast.walk(known[module]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.update((node.value, node.value.partition(".")[0]))
        elif isinstance(node, ast.JoinedStr):
            templates.add("".join(_template(part, module) for part in node.values))
    computed = {template.replace("{}", string) for template in templates for string in strings}
    return (strings | computed) & set(known)


def _template(part, module):
    if isinstance(part, ast.Constant):
        return part.value
    is_name = isinstance(part.value, ast.Name) and part.value.id == "__name__"
    return module if is_name else "{}"
