"""Models by name and size: `transformer-small`, `mamba-2-medium`, `xlstm-large` and others.

A preset is the width, the blocks, how often they repeat, and the norm of a model; `tiny` is for
tests. In a configuration, `preset` stands in the place of `type` and takes every key of the model
beside it: `model: {preset: mamba-small, vocab_size: 256}`. With a `type`, it is another model of
the same blocks: `{preset: mamba-small, type: sequence_classifier}`.
"""

from __future__ import annotations

from typing import Any

from ember_keras import registry
from ember_keras.config import presets as _data
from ember_keras.layers.base import EmberCall

__all__ = ["build", "config", "names"]


def names() -> list[str]:
    """Every preset's name: a family and a size.

    Example:

    ```python
    import ember_keras as ek

    print([name for name in ek.models.presets.names() if name.startswith("mamba")])
    ```
    """
    return _data.names()


def config(name: str) -> dict[str, Any]:
    """The configuration of a preset's `causal_lm`, as plain data.

    Args:
        name: str, one of `names()`.

    Example:

    ```python
    import ember_keras as ek

    print(ek.config.to_yaml(ek.models.presets.config("striped-hyena-small")))
    ```
    """
    return _data.expand({"preset": name})


def build(name: str, **arguments: Any) -> EmberCall:
    """A model of a preset.

    Args:
        name: str, one of `names()`.
        **arguments: what is added or replaced: `vocab_size`, `dtype`, another `type` and its own
            arguments.

    Example:

    ```python
    import ember_keras as ek
    import numpy as np

    model = ek.models.presets.build("mamba-tiny", vocab_size=50)
    print(model(np.array([[1, 2, 3]])).shape)  # (1, 3, 50)
    ```
    """
    kind = arguments.pop("type", "causal_lm")
    return registry.models.build({"type": kind, **_data.preset(name)}, **arguments)
