"""Checks a configuration against the classes it names, and says exactly where it is wrong.

A class's annotated `__init__` is the single statement of what it takes; the checks here and the
JSON Schema of `config.schema` are both read off it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import pydantic

from ember_keras.config import aliases, presets
from ember_keras.config.components import Component, nearest
from ember_keras.config.shown import escaped, message, shown

# What any Keras layer takes beside its own arguments; only Python code may pass these.
_BASE_ARGUMENTS = ("name", "dtype", "trainable")


class ConfigError(ValueError):
    """A configuration that cannot be built; `path` says where in it, as `model.blocks[1].mixer`."""

    def __init__(self, path: str, problem: str):
        self.path = path
        self.problem = problem
        where = f"{escaped(path, 200)}: " if path else ""
        super().__init__(where + message(problem))


def join(path: str, key: str | int) -> str:
    """The path of `key` under `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


@functools.cache
def arguments_of(cls: type) -> dict[str, tuple[Any, Any]]:
    """A class's own arguments: name -> (annotation, default or `inspect.Parameter.empty`)."""
    constructor: Any = getattr(cls, "__init__")  # noqa: B009, a class attribute, not an instance's
    hints = typing.get_type_hints(constructor, include_extras=True)
    found = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            found[parameter.name] = (hints.get(parameter.name, Any), parameter.default)
    return found


def component_kinds(annotation: Any) -> tuple[tuple[str, ...] | None, bool, bool]:
    """Reads an annotation: (kinds or None, whether a list of them, whether None may stand)."""
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, Component):
            return meta.kinds, False, False
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and args:
        kinds, nested, _ = component_kinds(args[0])
        return kinds, kinds is not None and not nested, False
    if type(None) in args:
        for arg in args:
            kinds, many, _ = component_kinds(arg)
            if kinds:
                return kinds, many, True
    return None, False, False


def validate_component(
    config: Any,
    kinds: tuple[str, ...],
    table: Callable[[str], Any],
    *,
    overrides: dict[str, Any] | None = None,
    path: str = "",
) -> dict[str, Any]:
    """Checks one component's configuration.

    Args:
        config: str or dict, a registered name or `{"type": name, argument: value, ...}`; a model
            may have `preset` in the place of `type`.
        kinds: tuple of str, the registry kinds where the name may stand.
        table: callable, from a kind to its registry.
        overrides: dict, arguments given in Python, which may also be those of every Keras layer.
        path: str, where `config` stands in its file.

    Returns:
        dict with `type` and the checked arguments; parts are checked dicts themselves.
    """
    where = " or ".join(kinds)
    if isinstance(config, str):
        config = {"type": config}
    if not isinstance(config, dict):
        raise ConfigError(
            path,
            f"received {shown(config)} ({type(config).__name__}), expected a name out of {where}, "
            "or a mapping with `type` and its arguments.",
        )
    if "models" in kinds and "preset" in config:
        try:
            config = presets.expand(config)
        except ValueError as error:
            raise ConfigError(join(path, "preset"), str(error)) from None
    if "type" not in config:
        raise ConfigError(
            path,
            f"the key `type` is missing; give it a name out of {where}: {_names(kinds, table)}.",
        )
    config, overrides = _without_aliases(config, overrides or {}, kinds, table, path)
    name = config["type"]
    kind = next((k for k in kinds if isinstance(name, str) and name in table(k)), None)
    if kind is None:
        known = [n for k in kinds for n in table(k).names()]
        raise ConfigError(
            join(path, "type"),
            f"received {shown(name)}, expected a name out of {where}: {_names(kinds, table)}."
            + nearest(name, known),
        )
    cls = table(kind).get(name)
    arguments = arguments_of(cls)
    checked: dict[str, Any] = {"type": name}
    for key, value in config.items():
        if key == "type":
            continue
        if key not in arguments:
            raise ConfigError(
                join(path, str(key)),
                f"unknown key; `{name}` takes {', '.join(arguments) or 'no arguments'}."
                + nearest(key, arguments),
            )
        checked[key] = _check(value, arguments[key][0], table, join(path, key))
    for key, value in overrides.items():
        if key in arguments:
            checked[key] = _check(value, arguments[key][0], table, join(path, key))
        elif key in _BASE_ARGUMENTS and hasattr(cls, "get_config"):
            checked[key] = value
        else:
            raise ConfigError(
                join(path, key),
                f"unknown argument; `{name}` takes {', '.join(arguments) or 'none'}."
                + nearest(key, arguments),
            )
    for key, (_, default) in arguments.items():
        if default is inspect.Parameter.empty and key not in checked:
            raise ConfigError(join(path, key), f"`{name}` needs this key; it has no default.")
    return checked


def _without_aliases(
    config: dict[str, Any],
    overrides: dict[str, Any],
    kinds: tuple[str, ...],
    table: Callable[[str], Any],
    path: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and the overrides in our names and arguments."""
    alias = aliases.find(config["type"], kinds)
    if alias is None:
        return config, overrides
    if alias.target not in table(alias.kind):
        raise ConfigError(
            join(path, "type"),
            f"received {config['type']!r}, which stands for {alias.target!r}, and that is not in "
            f"`registry.{alias.kind}` of this version: {_names((alias.kind,), table)}.",
        )
    given = {key: value for key, value in config.items() if key != "type"}
    try:
        ours = aliases.translate({**given, **overrides}, alias)
    except KeyError as error:
        key, problem = error.args
        raise ConfigError(join(path, key), problem) from None
    own = arguments_of(table(alias.kind).get(alias.target))
    base = {key: ours.pop(key) for key in list(ours) if key in overrides and key not in own}
    return {"type": alias.target, **alias.options, **ours}, base


def _names(kinds: tuple[str, ...], table: Callable[[str], Any]) -> str:
    names = dict.fromkeys(name for kind in kinds for name in table(kind).names())
    return ", ".join(names) or "(none)"


def section_of(annotation: Any) -> type | None:
    """The dataclass that an annotation stands for, alone or with None: a section of the file."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


def _check(value: Any, annotation: Any, table: Callable[[str], Any], path: str) -> Any:
    kinds, many, optional = component_kinds(annotation)
    section = section_of(annotation)
    if section is not None:
        if value is None and type(None) in typing.get_args(annotation):
            return None
        return _check_section(value, section, table, path)
    if kinds is None:
        return validate_value(value, annotation, path)
    if value is None and optional:
        return None
    if not many:
        return _check_part(value, kinds, table, path)
    if not isinstance(value, list | tuple):
        raise ConfigError(
            path,
            f"received {shown(value)} ({type(value).__name__}), expected a list of names or "
            f"mappings out of {' or '.join(kinds)}.",
        )
    return [_check_part(item, kinds, table, join(path, i)) for i, item in enumerate(value)]


def _check_section(value: Any, section: type, table: Callable[[str], Any], path: str) -> Any:
    if isinstance(value, section):
        return value
    fields = arguments_of(section)
    if not isinstance(value, dict):
        raise ConfigError(
            path,
            f"received {shown(value)} ({type(value).__name__}), expected a mapping with keys out "
            f"of {', '.join(fields)}.",
        )
    for key in value:
        if key not in fields:
            raise ConfigError(
                join(path, str(key)),
                f"unknown key; expected one of {', '.join(fields)}." + nearest(key, fields),
            )
    return section(
        **{key: _check(part, fields[key][0], table, join(path, key)) for key, part in value.items()}
    )


def _check_part(value: Any, kinds: tuple[str, ...], table: Callable[[str], Any], path: str) -> Any:
    if not isinstance(value, str | dict | int | float | list | tuple | type(None)):
        return value  # A component that Python code has built already.
    if isinstance(value, str):
        validate_component(value, kinds, table, path=path)
        return value
    return validate_component(value, kinds, table, path=path)


@functools.cache
def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(
        annotation, config=pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True)
    )


def validate_value(value: Any, annotation: Any, path: str) -> Any:
    """Checks one plain value against its annotation; no conversion but int to float."""
    try:
        return _adapter(annotation).validate_python(value)
    except pydantic.ValidationError as error:
        raise ConfigError(*_first_problem(error, value, annotation, path)) from None


def _first_problem(
    error: pydantic.ValidationError, value: Any, annotation: Any, path: str
) -> tuple[str, str]:
    problems = error.errors()
    # A union reports every branch; the branch that got deepest into the value says the most.
    problem = max(problems, key=lambda p: len(p["loc"]))
    received = problem["input"]
    expected = "; or ".join(dict.fromkeys(p["msg"] for p in problems if p["loc"] == problem["loc"]))
    for part in problem["loc"]:
        if isinstance(part, int) or (isinstance(value, dict) and part in value):
            path = join(path, part)
            value = value[part]
        elif problem["type"] in ("extra_forbidden", "unexpected_keyword_argument", "missing"):
            path = join(path, part)
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        fields = list(getattr(annotation, "__dataclass_fields__", {}))
        return path, f"unknown key; expected one of {', '.join(fields)}." + nearest(
            path.rpartition(".")[2], fields
        )
    hint = ""
    if problem["type"] == "literal_error":
        options = str(problem.get("ctx", {}).get("expected", "")).replace("'", "")
        hint = nearest(received, options.replace(" or ", ", ").split(", "))
    return path, f"received {shown(received)} ({type(received).__name__}). {expected}.{hint}"
