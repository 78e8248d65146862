"""Models by name and size, as data: `{preset: mamba-small, vocab_size: 256}` in a configuration.

A preset is the width, the blocks, how often they repeat, and the norm. Every other key of the
configuration is added to it or replaces it; without a `type` it is a `causal_lm`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ember_keras.config.components import nearest

SIZES = {"tiny": (32, 1), "small": (256, 8), "medium": (512, 12), "large": (1024, 24)}
"""The width and the layers of each size; a layer has about the weights of a transformer's. Tiny is
for tests: one of each kind of block."""

Blocks = list[Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """Models that differ in size alone.

    Args:
        blocks: function from the number of heads, and how often the commoner of two kinds of layers
            stands before the rarer one may (at most this often, 1 in the tiny size), to the list
            of blocks.
        layers: float, how many layers of a transformer the list stands for.
        norm: str, a name in `registry.norms`.
    """

    blocks: Callable[[int, int], Blocks]
    layers: float
    norm: str = "rms_norm"


def _heads(name: str, heads: int, **options: Any) -> dict[str, Any]:
    return {"type": name, "num_heads": heads, **options}


def _times(times: int, *blocks: Any) -> Blocks:
    """Some blocks several times, or as they are where that is once."""
    return [*blocks] if times == 1 else [{"type": "repeat", "times": times, "blocks": [*blocks]}]


def _experts(count: int) -> dict[str, Any]:
    """Gated MLPs of which a position takes two."""
    return {"type": "mixture_of_experts", "num_experts": count}


def _jamba(heads: int, most: int) -> Blocks:
    """Eight layers, the fifth with attention, every second with experts; tiny, two of them."""
    attention = _heads("attention", heads)
    if most == 1:
        return ["mamba", "gated_mlp", attention, _experts(4)]
    mixture = _experts(16)
    return [
        *_times(2, "mamba", "gated_mlp", "mamba", mixture),
        *(attention, "gated_mlp", "mamba", mixture),
        *("mamba", "gated_mlp", "mamba", mixture),
    ]


_GEGLU = {"type": "gated_mlp", "gate": "geglu"}

FAMILIES: dict[str, Family] = {
    "transformer": Family(lambda heads, most: [_heads("attention", heads), "gated_mlp"], 1),
    "lstm": Family(lambda heads, most: ["lstm"], 0.67, "layer_norm"),
    "hyena": Family(lambda heads, most: ["hyena", "mlp"], 1, "layer_norm"),
    "striped-hyena": Family(
        lambda heads, most: [
            *_times(min(most, 3), "hyena", "gated_mlp"),
            _heads("attention", heads),
            "gated_mlp",
        ],
        4,
    ),
    "fft-conv": Family(lambda heads, most: [{"type": "fft_conv", "filter": "s4d"}, "gated_mlp"], 1),
    "mamba": Family(lambda heads, most: ["mamba"], 0.5),
    "mamba-2": Family(lambda heads, most: [{"type": "mamba2", "state_dim": 128}], 0.5),
    "jamba": Family(_jamba, 8),
    "rwkv-7": Family(
        lambda heads, most: [_heads("rwkv7_time_mixer", heads), "rwkv7_channel_mixer"],
        1,
        "layer_norm",
    ),
    "xlstm": Family(
        lambda heads, most: [
            *_times(min(most, 7), _heads("expanded_mlstm", 4)),
            _heads("slstm", 4),
            _GEGLU,
        ],
        4,
        "layer_norm",
    ),
    "griffin": Family(
        lambda heads, most: [
            *_times(min(most, 2), "rg_lru", _GEGLU),
            _heads("sliding_attention", heads, num_kv_heads=1, window=1024 if most > 1 else 8),
            _GEGLU,
        ],
        3,
    ),
    "moe": Family(
        lambda heads, most: [
            _heads("attention", heads),
            _experts(8 if most > 1 else 4),
        ],
        1,
    ),
    "liquid": Family(lambda heads, most: ["cfc", "gated_mlp"], 1),
}


def names() -> list[str]:
    """Every preset: a family and a size."""
    return [f"{family}-{size}" for family in FAMILIES for size in SIZES]


def preset(name: str) -> dict[str, Any]:
    """The configuration of a preset, without `type`.

    Raises:
        ValueError: there is none of that name.
    """
    family, _, size = str(name).rpartition("-")
    if family not in FAMILIES or size not in SIZES:
        raise ValueError(
            f"received {name!r}, expected a preset: {', '.join(FAMILIES)}, each with -"
            f"{', -'.join(SIZES)}.{nearest(name, names())}"
        )
    width, layers = SIZES[size]
    tiny = size == "tiny"
    found = FAMILIES[family]
    return {
        "width": width,
        "blocks": found.blocks(max(2, width // 64), 1 if tiny else 8),
        "repeats": 1 if tiny else max(1, round(layers / found.layers)),
        "norm": found.norm,
    }


def expand(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with `preset` as one with `type`; one without it as it is."""
    if "preset" not in config:
        return config
    given = {key: value for key, value in config.items() if key != "preset"}
    return {"type": "causal_lm", **preset(config["preset"]), **given}
