"""The keys of a `config.json`: what each may be, and what it is where it is missing.

A key that is not here is refused: it might change what the model computes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from ember_keras.config.components import nearest
from ember_keras.config.shown import escaped, shown


class KeyProblem(ValueError):
    """What is wrong with a configuration, without the file that it came from."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A key whose value is taken as it is; the other kinds say what they expect.

    Args:
        default: the value where the key is missing.
    """

    default: Any = None

    expected = "a value"

    def allows(self, value: Any) -> bool:
        """Whether `value` may stand."""
        return True

    def read(self, name: str, config: dict[str, Any]) -> Any:
        """The value of the key, or its default; `KeyProblem` where it may not stand."""
        value = config.get(name, self.default)
        if name in config and value != self.default and not self.allows(value):
            raise KeyProblem(f"`{name}` is {shown(value)}, expected {self.expected}.")
        return value


@dataclasses.dataclass(frozen=True)
class Whole(Key):
    """A whole number; None may stand where it is the default, or where `none` says so."""

    least: int = 1
    most: int = 1 << 20
    none: bool = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a whole number from {self.least} to {self.most}"

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.none
        return type(value) is int and self.least <= value <= self.most


def is_positive(value: Any) -> bool:
    """Whether a value is a number above 0 that a float holds: JSON's whole numbers have no end."""
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


class Number(Key):
    """A number above 0, of a float's range; a whole one too, as people write `1`."""

    expected = f"a number above 0, at most {sys.float_info.max:.1e}"

    def allows(self, value: Any) -> bool:
        return is_positive(value)


class Flag(Key):
    """True or false."""

    expected = "true or false"

    def allows(self, value: Any) -> bool:
        return type(value) is bool


@dataclasses.dataclass(frozen=True)
class Choice(Key):
    """One of a few values."""

    choices: tuple[Any, ...] = ()

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"one of {', '.join(map(repr, self.choices))}"

    def allows(self, value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in self.choices)


class Fixed(Key):
    """The default and nothing else: another value would compute what no layer here does."""

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.default!r}, since nothing here computes the other"

    def allows(self, value: Any) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class Twin(Key):
    """Another name for a key, whose value it must have."""

    of: str = ""

    def read(self, name: str, config: dict[str, Any]) -> Any:
        if name in config and self.of in config and config[name] != config[self.of]:
            raise KeyProblem(
                f"`{name}` is {shown(config[name])}, and `{self.of}` {shown(config[self.of])}, "
                "expected the same twice."
            )
        return None


IGNORED = Key()
"""Of training, of generation, or of how transformers runs the model: the numbers do not change."""

COMMON: Mapping[str, Key] = {
    "model_type": Key(),
    **dict.fromkeys(
        """
        _attn_implementation _attn_implementation_autoset _name_or_path architectures
        attn_implementation bos_token_id dtype eos_token_id id2label initializer_range
        label2id max_position_embeddings max_sequence_length name_or_path output_attentions
        output_hidden_states pad_token_id problem_type return_dict torch_dtype transformers_version
        use_cache
        """.split(),
        IGNORED,
    ),
    "chunk_size_feed_forward": Fixed(0),
    "is_encoder_decoder": Fixed(False),
}
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_QUANTIZED = ("quantization_config", "compression_config")


def read_keys(config: dict[str, Any], keys: Mapping[str, Key], architecture: str) -> dict[str, Any]:
    """The values of all keys of a family.

    Args:
        config: dict, the content of `config.json`.
        keys: mapping, the keys of the family; those of `COMMON` may stand beside them.
        architecture: str, the one name that may stand in `architectures`.
    """
    for name in _CODE:
        if config.get(name):
            raise KeyProblem(
                f"the key `{name}` says that code of its own computes this model. Such code is "
                "never run, and what it computes is unknown."
            )
    for name in _QUANTIZED:
        if config.get(name) is not None:
            raise KeyProblem(
                f"the key `{name}` says that the weights are quantized, which is not read. Fetch "
                "the model as it was trained."
            )
    known = {**COMMON, **keys}
    for name in config:
        if name not in known:
            raise KeyProblem(
                f"the key `{escaped(name)}` is unknown, and might change what the model computes."
                f"{nearest(name, known)} If it changes nothing, remove it from `config.json`."
            )
    given = config.get("architectures")
    if given is not None and given != [architecture]:
        raise KeyProblem(
            f"`architectures` is {shown(given)}, expected [{architecture!r}], a model of the next "
            "token."
        )
    return {name: key.read(name, config) for name, key in known.items()}
