"""Ember Keras: sequence models as ordinary Keras 3 layers, on five backends."""

import importlib
from typing import Any

from ember_keras.backend import activate as _activate

_activate()  # Before Keras is imported: under MLX it is grafted onto stock Keras here.

from ember_keras import backend, blocks, config, layers, models, ops, registry  # noqa: E402
from ember_keras.models import load_model, save_model  # noqa: E402
from ember_keras.ops.tensor import EmberTensor  # noqa: E402

__version__ = "0.1.0"

_LAZY = ("callbacks", "interop", "pipelines", "tasks")

registry.tasks.provided_by("ember_keras.tasks")
registry.pipelines.provided_by("ember_keras.pipelines")

__all__ = [
    "EmberTensor",
    "backend",
    "blocks",
    "callbacks",
    "config",
    "interop",
    "layers",
    "load_model",
    "models",
    "ops",
    "pipelines",
    "registry",
    "save_model",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
