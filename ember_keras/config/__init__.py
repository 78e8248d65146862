"""Typed configurations, to and from plain data, YAML and JSON.

Nothing here writes a file. What needs pydantic or PyYAML is imported when first used, so that
`import ember_keras` stays quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from ember_keras.config.components import Component

_LAZY = {
    "ConfigError": "validation",
    "from_yaml": "files",
    "json_schema": "schema",
    "read_config": "files",
    "set_value": "files",
    "to_json": "files",
    "to_yaml": "files",
}

__all__ = ["Component", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
