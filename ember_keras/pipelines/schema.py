"""The JSON Schema of the files that `ember-keras train` reads."""

from __future__ import annotations

from typing import Any

from ember_keras import registry
from ember_keras.config import json_schema


def experiment_schema(kind: str | None = None) -> dict[str, Any]:
    """The schema of one component of `kind`, or of a whole experiment."""
    schema = json_schema(kind or "pipelines", registry.KINDS, registry.table)
    if kind is None:
        training = schema["$defs"]["pipelines.training"]
        training["required"].remove("type")  # An experiment trains unless it says otherwise.
        schema["$ref"] = "#/$defs/pipelines.training"
    return schema
