"""What a constructor was given, held against its own annotations."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import types
import typing
from typing import Any

from ember_keras.config.components import nearest

_KINDS: dict[type, tuple[type, str]] = {
    int: (numbers.Integral, "an int"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a string"),
    type(None): (type(None), "None"),
}


def check_types(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuses an argument that is annotated as a plain value and is of another type.

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
        if name in given and isinstance(given[name], float) and math.isnan(given[name]):
            raise ValueError(f"`{cls.__name__}` received {name}=nan, expected a number.")


def _signature(cls: type) -> inspect.Signature:
    return inspect.signature(getattr(cls, "__init__"))  # noqa: B009, not an instance's


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, _KINDS[kind][0])


@functools.cache
def _plain_arguments(cls: type) -> dict[str, tuple[type, ...]]:
    """The arguments whose annotations are made of nothing but `_KINDS`."""
    constructor: Any = getattr(cls, "__init__")  # noqa: B009
    try:
        hints = typing.get_type_hints(constructor)
    except (NameError, TypeError):  # Somebody else's class, whose annotations are for readers.
        return {}
    found = {}
    for name, hint in hints.items():
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = typing.get_args(hint) if union else (hint,)
        if name != "return" and all(kind in _KINDS for kind in kinds):
            found[name] = kinds
    return found


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
