"""The JSON Schema of every configuration, read off the classes' own signatures."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

from ember_keras.config import presets
from ember_keras.config.validation import _adapter, arguments_of, component_kinds, section_of


def json_schema(
    root_kind: str, kinds: tuple[str, ...], table: Callable[[str], Any]
) -> dict[str, Any]:
    """A schema (draft 2020-12) of a file that holds one component of `root_kind`.

    An editor that knows it completes keys and names while a configuration is typed.
    """
    definitions: dict[str, Any] = {
        "preset": {
            "type": "object",
            "description": "A model by name and size, with whatever keys of the model beside it.",
            "properties": {"preset": {"enum": presets.names()}},
            "required": ["preset"],
        }
    }
    for kind in kinds:
        names = table(kind).names()
        definitions[kind] = {
            "description": f"One of the registered {kind.replace('_', ' ')}.",
            "anyOf": [{"enum": names}, *({"$ref": f"#/$defs/{kind}.{n}"} for n in names)],
        }
        if kind == "models":
            definitions[kind]["anyOf"].append({"$ref": "#/$defs/preset"})
        for name in names:
            definitions[f"{kind}.{name}"] = _component(table(kind), name, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ember Keras configuration",
        "$ref": f"#/$defs/{root_kind}",
        "$defs": definitions,
    }


def _component(registry: Any, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _mapping(registry.get(name), definitions)
    return {
        "type": "object",
        "description": registry.describe(name),
        "properties": {"type": {"const": name}, **schema["properties"]},
        "required": ["type", *schema["required"]],
        "additionalProperties": False,
    }


def _mapping(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for key, (annotation, default) in arguments_of(cls).items():
        properties[key] = _argument(annotation, definitions)
        if default is inspect.Parameter.empty:
            required.append(key)
        elif dataclasses.is_dataclass(default) and not isinstance(default, type):
            properties[key]["default"] = dataclasses.asdict(default)
        else:
            properties[key]["default"] = list(default) if isinstance(default, tuple) else default
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _argument(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    section = section_of(annotation)
    if section is not None:
        optional = type(None) in typing.get_args(annotation)
        part: dict[str, Any] = {"description": (inspect.getdoc(section) or "").partition("\n")[0]}
        part |= _mapping(section, definitions)
        return {"anyOf": [part, {"type": "null"}]} if optional else part
    kinds, many, optional = component_kinds(annotation)
    if kinds is None:
        schema = _adapter(annotation).json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        return schema
    part = {"anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds]}
    if many:
        part = {"type": "array", "items": part}
    return {"anyOf": [part, {"type": "null"}]} if optional else part
