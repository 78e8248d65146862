"""Hostile YAML, JSON and `from_config`: the same rules where no file format stands before them."""

import keras
import pytest
from saving import cases, hostile, hostile_configs

import ember_keras as ek
from ember_keras import config, registry

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)

YAML = {
    "object": "!!python/object/apply:os.system ['touch {canary}']",
    "new": "!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
    "name": "model: !!python/name:os.system",
    "module": "model: !!python/module:antigravity",
    "tag": "model: !evil {{type: causal_lm}}",
    "aliases": ALIASES.replace("{", "{{").replace("}", "}}"),
    "merge": "base: &base {{a: 1}}\nmodel:\n  <<: *base",
    "key twice": "type: causal_lm\ntype: sequence_model",
    "deep": "[" * 5000 + "]" * 5000,
    "huge": "x: " + "y" * (2 << 20),
    "two documents": "type: causal_lm\n---\ntype: causal_lm",
    "bytes": "\x00\x01",
}


@pytest.mark.parametrize("case", YAML)
def test_hostile_yaml(case, tmp_path):
    canary = tmp_path / "canary"
    text = YAML[case].format(canary=canary)
    with pytest.raises(ValueError, match=".") as caught:
        registry.models.build(config.from_yaml(text, "hostile.yaml"))
    assert len(str(caught.value)) < 1500
    assert not canary.exists()


LONG = "x" * 500_000
SPOILED_YAML = {
    "value of half a megabyte": (f"vocab_size: {LONG}", r"^vocab_size: received 'x+\.\.\.x+' "),
    "number of many digits": ("blocks: 0x" + "f" * 50_000, "^blocks: received int of very"),
    "number that Python does not read": (
        "vocab_size: " + "1" * 5000,
        "^spoiled.yaml: not readable",
    ),
    "key that clears the screen": (r'"\e[2J": 1', r"^\\x1b\[2J: unknown key"),
    "key that is half a character": (r'"\ud800": 1', r"^\\ud800: unknown key"),
    "key of half a megabyte": (f"? {LONG}\n: 1", r"^x+\.\.\.x+: unknown key"),
    "long key twice": (f"? {LONG}\n: 1\n? {LONG}\n: 2", "stands twice"),
}


@pytest.mark.parametrize("case", SPOILED_YAML)
def test_errors_of_yaml_are_short_and_can_be_printed(case):
    text, words = SPOILED_YAML[case]
    with pytest.raises(config.ConfigError, match=words) as caught:
        registry.models.build(config.from_yaml(f"type: causal_lm\n{text}\n", "spoiled.yaml"))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def popen(canary):
    return hostile_configs.popen(canary)


def nested_lambda(canary):
    inner = {"function": {"class_name": "__lambda__", "config": hostile.code_of(canary)}}
    return cases.layer("Lambda", inner)


HOSTILE_PARTS = {
    "lambda": nested_lambda,
    "class": popen,
    "unknown type": lambda canary: {"type": "subprocess.Popen", "args": ["touch", str(canary)]},
    "path": lambda canary: {"type": "/etc/passwd"},
    "saved model": lambda canary: cases.layer("TFSMLayer", {"filepath": str(canary)}),
    "vocabulary": lambda canary: cases.layer("StringLookup", {"vocabulary": "/etc/passwd"}),
}


@pytest.mark.parametrize("case", HOSTILE_PARTS)
@pytest.mark.parametrize("where", ["model", "block", "mixer"])
def test_hostile_parts_of_our_configurations(case, where, tmp_path):
    """Plain `from_config` and Keras's own loader, which our checks do not stand before."""
    canary = tmp_path / "canary"
    part = HOSTILE_PARTS[case](canary)
    cls, settings = {
        "model": (ek.models.CausalLM, {"vocab_size": 4, "width": 4, "blocks": [part]}),
        "block": (ek.blocks.Block, {"mixer": part}),
        "mixer": (ek.layers.FFTConv, {"filter": part}),
    }[where]
    with pytest.raises((ValueError, TypeError)):
        cls.from_config(settings)
    spec = cases.layer(cls.__name__, settings, cls.__module__, f"ember_keras>{cls.__name__}")
    with pytest.raises((ValueError, TypeError)):
        keras.saving.deserialize_keras_object(spec)
    assert not canary.exists()
