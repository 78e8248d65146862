"""What converters share: reading another package's weights, and setting ours."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np


def tensors(module: Any) -> dict[str, np.ndarray]:
    """The weights of a torch module by name, as numpy arrays."""
    require(module, "a module of PyTorch", "state_dict")
    return {
        name: value.detach().cpu().float().numpy().copy()
        for name, value in module.state_dict().items()
    }


def require(module: Any, expected: str, *attributes: str) -> None:
    """Refuses a module of another kind: one that lacks what the expected one has."""
    if not all(hasattr(module, name) for name in attributes):
        raise TypeError(
            f"Received a {type(module).__name__}, expected {expected}. Pass that module."
        )


def builds(layer: Any, width: int) -> Any:
    """`layer`, built for inputs `(B, T, width)`."""
    layer.build((None, None, width))
    return layer


def assign(variable: Any, value: np.ndarray) -> None:
    """Sets a variable, refused where the shape is another one."""
    value = np.asarray(value)
    if tuple(value.shape) != tuple(variable.shape):
        raise ValueError(
            f"Received a weight of shape {value.shape} for `{variable.path}`, expected "
            f"{tuple(variable.shape)}. The two layers differ in an option: convert a layer of the "
            "same sizes."
        )
    variable.assign(value.astype("float32"))


def refuse(received: str, expected: str) -> NoReturn:
    """Raises the `ValueError` of a module that has no counterpart here."""
    raise ValueError(f"Received {received}, expected {expected}. There is no equal layer here.")
