"""Layers whose variables have shapes and no values yet: nothing is drawn, nothing is allocated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from ember_keras import backend

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


def fill(variable: Any, parts: Iterable[tuple[Any, np.ndarray]] | None = None) -> None:
    """Gives a variable of `build_unfilled` its value.

    The parts are written one after another into the memory that the variable then has, so that no
    second copy of a large one is made on a CPU.

    Args:
        variable: keras.Variable without a value.
        parts: iterable of pairs, an index of the variable and the numpy array that is there,
            converted to its dtype; all of them together are the whole variable. When None it gets
            what its initializer draws.
    """
    if parts is None:
        variable._deferred_initialize()
        return
    array, finish = backend.writable(tuple(variable.shape), variable._dtype)
    written = 0
    for index, values in parts:
        place = array[index]
        if place.shape != values.shape:
            raise ValueError(
                f"Received values of shape {values.shape} for a part of `{variable.path}`, "
                f"expected {place.shape}."
            )
        place[...] = values
        written += values.size
    if written != array.size:
        raise ValueError(
            f"Received {written:,} numbers for `{variable.path}`, expected {array.size:,}: its "
            f"shape is {tuple(variable.shape)}. Give parts that are all of it, and each once."
        )
    variable._initialize(finish())
    variable._initializer = None
