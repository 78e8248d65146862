"""What a constructor was given, held against its own annotations."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import types
import typing
from typing import Any

import numpy as np

from ember_keras.config.components import nearest
from ember_keras.config.shown import shown

_KINDS: dict[type, tuple[type, str]] = {
    int: (numbers.Integral, "an int"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a string"),
    type(None): (type(None), "None"),
}


def check_types(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuses an argument that is annotated as a plain value, or as one of some, and is another.

    Args:
        cls: type, the class that is being built.
        args: tuple, what its constructor is given by position.
        kwargs: dict, what it is given by keyword.
    """
    try:
        given = _signature(cls).bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return  # Python itself says what is wrong with the call.
    for name, kinds in _plain_arguments(cls).items():
        if name in given and not any(_is(given[name], kind) for kind in kinds):
            expected = " or ".join(_KINDS[kind][1] for kind in kinds)
            raise TypeError(
                f"`{cls.__name__}` received {name}={given[name]!r} "
                f"({type(given[name]).__name__}), expected {expected}."
            )
        if name in given and _overflows(given[name], kinds):
            raise ValueError(
                f"`{cls.__name__}` received {name}={shown(given[name])}, expected a finite number."
            )
    for name, values in _choices(cls).items():
        if name in given and given[name] not in values:
            raise ValueError(
                f"`{cls.__name__}` received {name}={given[name]!r}, expected one of "
                f"{', '.join(map(repr, values))}.{nearest(str(given[name]), map(str, values))}"
            )


def _signature(cls: type) -> inspect.Signature:
    return inspect.signature(getattr(cls, "__init__"))  # noqa: B009, not an instance's


def _overflows(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether an argument is a number, and none that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        return False
    if isinstance(value, int) and float not in kinds:
        return False
    return not is_finite(value)


def is_finite(value: Any) -> bool:
    """Whether a float holds a number: Python's whole numbers go on where floats end."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, _KINDS[kind][0])


@functools.cache
def _plain_arguments(cls: type) -> dict[str, tuple[type, ...]]:
    """The arguments whose annotations are made of nothing but `_KINDS`."""
    return {
        name: kinds for name, kinds in _hints(cls).items() if all(kind in _KINDS for kind in kinds)
    }


@functools.cache
def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    """The arguments that are annotated as one of some values, and these."""
    return {
        name: typing.get_args(kinds[0])
        for name, kinds in _hints(cls).items()
        if len(kinds) == 1 and typing.get_origin(kinds[0]) is typing.Literal
    }


def _hints(cls: type) -> dict[str, tuple[Any, ...]]:
    """The annotations of a constructor's arguments, those of a union apart."""
    constructor: Any = getattr(cls, "__init__")  # noqa: B009
    try:
        hints = typing.get_type_hints(constructor)
    except (NameError, TypeError):  # Somebody else's class, whose annotations are for readers.
        return {}
    unions = (typing.Union, types.UnionType)
    return {
        name: typing.get_args(hint) if typing.get_origin(hint) in unions else (hint,)
        for name, hint in hints.items()
        if name != "return"
    }


def unknown_arguments(cls: type, kwargs: dict[str, Any]) -> str:
    """What to say of the keywords that no constructor of `cls` names, or an empty string."""
    known = [
        name
        for ancestor in cls.__mro__
        for name, parameter in _signature(ancestor).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name not in ("self", "args")
    ]
    unknown = [name for name in kwargs if name not in known]
    if not unknown:
        return ""
    return (
        f"`{cls.__name__}` received the unknown argument {unknown[0]!r}, expected some of "
        f"{', '.join(dict.fromkeys(known))}.{nearest(unknown[0], known)}"
    )
