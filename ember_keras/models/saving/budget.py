"""What a model may take while it is built: a configuration of a few bytes can ask for anything."""

from __future__ import annotations

import contextvars
import functools
import inspect
import math
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import keras

MOST_LAYERS = 20_000
"""How many layers a configuration of one's own may ask for."""
OVERHEAD = 1 << 10
"""How many bytes larger than its data a variable is counted."""

_budget: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("budget", default=None)
_lock = threading.Lock()
_users = 0
_new_variable = keras.Variable.__init__
_new_layer = keras.layers.Layer.__init__


class Budget:
    """Refuses, while it is open in this context, variables and layers beyond a limit.

    Keras takes memory as soon as a variable is made, and there is no other place to say no before
    that: its classes are given constructors that count, for as long as a budget is open.

    Args:
        limit: int. The most bytes of all variables.
        layers: int. The most layers.
        refuse: callable. The error for what is asked for, "more than 10 bytes of weights".

    Attributes:
        error: Exception or None. What was refused.
    """

    def __init__(self, limit: int, layers: int, refuse: Callable[[str], Exception]):
        self.limit = self._left = limit
        self._layers = layers
        self._refuse = refuse
        self.error: Exception | None = None

    def __enter__(self) -> Budget:
        global _users  # noqa: PLW0603
        self._token = _budget.set(self)
        with _lock:
            _users += 1
            keras.Variable.__init__ = _counted_variable
            keras.layers.Layer.__init__ = _counted_layer
        return self

    def __exit__(self, *_: object) -> None:
        global _users  # noqa: PLW0603
        _budget.reset(self._token)
        with _lock:
            _users -= 1
            if not _users:
                keras.Variable.__init__ = _new_variable
                keras.layers.Layer.__init__ = _new_layer

    def take_variable(self, shape: Any, dtype: Any) -> None:
        """Counts a variable."""
        sizes = [size for size in shape or () if isinstance(size, int)]
        self._left -= math.prod(sizes) * _item_size(dtype) + OVERHEAD
        if self._left < 0:
            self._fail(f"more than {self.limit:,} bytes of weights")

    def take_layer(self) -> None:
        """Counts a layer."""
        self._layers -= 1
        if self._layers < 0:
            self._fail("too many layers")

    def check(self) -> None:
        """Says again what was refused, where Keras has swallowed it."""
        if self.error is not None:
            raise self.error

    def _fail(self, what: str) -> None:
        self.error = self._refuse(what)
        raise self.error


def of_this_machine() -> Budget:
    """A budget of the machine's memory and `MOST_LAYERS`, for a model of one's own."""
    return Budget(_memory(), MOST_LAYERS, _too_large)


def _memory() -> int:
    """The bytes of this machine's memory, or more than any has where it does not say."""
    names = getattr(os, "sysconf_names", {})
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 1 << 50


def _too_large(what: str) -> ValueError:
    return ValueError(
        f"asks for {what}, expected at most what this machine has memory for, and "
        f"{MOST_LAYERS:,} layers. Give it a smaller width, or fewer blocks or experts.",
    )


def _item_size(dtype: Any) -> int:
    bits = re.search(r"\d+", keras.backend.standardize_dtype(dtype))
    return max(int(bits.group()) // 8, 1) if bits else 1


def _stands_for(constructor: Any) -> Callable[[Any], Any]:
    """Gives a constructor the signature of another: Keras and the layers here read it."""

    def with_its_signature(function: Any) -> Any:
        function = functools.wraps(constructor)(function)
        function.__signature__ = inspect.signature(constructor)  # For who looks past a wrapper.
        return function

    return with_its_signature


@_stands_for(_new_variable)
def _counted_variable(
    self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any
) -> None:
    budget = _budget.get()
    if budget is not None:
        budget.take_variable(getattr(initializer, "shape", ()) if shape is None else shape, dtype)
    _new_variable(self, initializer, shape, dtype, *args, **kwargs)


@_stands_for(_new_layer)
def _counted_layer(self: Any, *args: Any, **kwargs: Any) -> None:
    budget = _budget.get()
    if budget is not None:
        budget.take_layer()
    _new_layer(self, *args, **kwargs)
