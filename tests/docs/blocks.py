"""Finds the ```python blocks of pages and docstrings."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """Every block with the number of its first line."""
    for match in FENCE.finditer(text):
        indent, code = match.groups()
        lines = [line.removeprefix(indent) for line in code.splitlines()]
        yield text[: match.start()].count("\n") + 2, "\n".join(lines) + "\n"


def pages():
    """Every page that has code, by its path."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in paths if any(blocks(path.read_text(encoding="utf-8")))]


def docstrings():
    """Every docstring of the package that has code: its dotted name, and its text."""
    for path in sorted((ROOT / "ember_keras").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and any(blocks(text)):
                    name = getattr(node, "name", "")
                    yield f"{module}.{name}".removesuffix("."), text
