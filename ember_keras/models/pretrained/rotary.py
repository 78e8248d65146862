"""The rotary positions of a `config.json`, in the forms of transformers 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ember_keras.config.shown import escaped, shown
from ember_keras.models.pretrained.keys import Key, KeyProblem, Number, is_positive

KEYS: Mapping[str, Key] = {
    "rope_parameters": Key(),
    "rope_scaling": Key(),
    "rope_theta": Number(),
    "partial_rotary_factor": Number(),
}
_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "original_max_position_embeddings": "original_length",
}
_KINDS = {"default": (), "linear": ("factor",), "llama3": tuple(_SCALING)}


def read(config: dict[str, Any], base: float = 10000.0, fraction: float = 1.0) -> dict[str, Any]:
    """The arguments of `Attention` that say how its heads are turned.

    Args:
        config: dict, the values of `KEYS`.
        base: float, `rope_theta` where the configuration has none.
        fraction: float, `partial_rotary_factor` where it has none.
    """
    given: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        part = config[name]
        if part is not None and not isinstance(part, dict):
            raise KeyProblem(f"`{name}` is {shown(part)}, expected an object or null.")
        for key, value in (part or {}).items():
            key = "rope_type" if key == "type" else key
            if _differ(given.setdefault(key, value), value):
                raise KeyProblem(
                    f"`{name}` has `{escaped(key)}` {shown(value)}, beside {shown(given[key])}."
                )
    for name in ("rope_theta", "partial_rotary_factor"):
        value = config[name]
        if value is not None and _differ(given.setdefault(name, value), value):
            raise KeyProblem(f"`{name}` is {shown(value)}, beside {shown(given[name])}.")
    base, fraction = (
        _number(given, key, default)
        for key, default in (("rope_theta", base), ("partial_rotary_factor", fraction))
    )
    kind = given.pop("rope_type", "default")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise KeyProblem(
            f"`rope_type` is {shown(kind)}, expected one of {', '.join(_KINDS)}: no other is "
            "computed."
        )
    scaling = {_SCALING[key]: _number(given, key) for key in _KINDS[kind]}
    if given:
        raise KeyProblem(f"`rope_parameters` has the unknown key `{escaped(min(given))}`.")
    return {
        "rotary_base": base,
        "rotary_fraction": fraction,
        "rotary_scaling": scaling or None,
    }


def write(mixer: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` for the arguments of an `Attention`."""
    scaling = mixer["rotary_scaling"] or {}
    kind = next(name for name, keys in _KINDS.items() if len(keys) == len(scaling))
    numbers = {theirs: scaling[ours] for theirs, ours in _SCALING.items() if ours in scaling}
    if "original_max_position_embeddings" in numbers:
        length = numbers["original_max_position_embeddings"]
        numbers["original_max_position_embeddings"] = int(length)
    return {
        "rope_type": kind,
        "rope_theta": mixer["rotary_base"],
        "partial_rotary_factor": mixer["rotary_fraction"],
        **numbers,
    }


def _differ(one: Any, other: Any) -> bool:
    """Whether two values of a key differ; NaN, which is not equal to itself, is one value."""
    return one is not other and bool(one != other)


def _number(given: dict[str, Any], key: str, default: float | None = None) -> float:
    value = given.pop(key, default)
    if not is_positive(value):
        raise KeyProblem(f"`{key}` is {shown(value)}, expected {Number.expected}.")
    return float(value)
