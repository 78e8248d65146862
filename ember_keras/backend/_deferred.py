"""Layers whose variables have shapes and no values yet: nothing is drawn, nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.src.backend.common import global_state

_PENDING = "uninitialized_variables"


def build_unfilled(build: Callable[[], Any]) -> list[Any]:
    """Runs `build` and returns the variables that it made, which have no values yet.

    Each of them needs a value, from `fill`, before its layer is used.

    Args:
        build: callable, which builds layers and computes nothing with their variables.
    """
    before = global_state.get_global_attribute(_PENDING, [])
    global_state.set_global_attribute(_PENDING, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            build()
        return list(global_state.get_global_attribute(_PENDING, []))
    finally:
        global_state.set_global_attribute(_PENDING, before)


def fill(variable: Any, value: Any = None) -> None:
    """Gives a variable of `build_unfilled` its value.

    Args:
        variable: keras.Variable without a value.
        value: numpy array of the variable's shape, converted to its dtype; what the variable's
            initializer draws when None.
    """
    if value is None:
        variable._deferred_initialize()
        return
    if tuple(value.shape) != tuple(variable.shape):
        raise ValueError(
            f"Received a value of shape {tuple(value.shape)} for `{variable.path}`, expected "
            f"{tuple(variable.shape)}."
        )
    variable._initialize(variable._convert_to_tensor(value, dtype=variable._dtype))
    variable._initializer = None
