"""Mamba-2 (Dao and Gu 2024, arXiv 2405.21060)."""

from __future__ import annotations

import math
from typing import Any

from ember_keras.models.pretrained.families import base, mamba
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import IGNORED, Flag, Key, KeyProblem, Whole
from ember_keras.models.pretrained.rules import GroupRows, Rule


class NoLimit(Key):
    """`time_step_limit`, which keeps nothing out: from 0 to infinity, as JSON has it or not."""

    expected = "[0.0, Infinity]: steps with limits are not computed"

    def allows(self, value: Any) -> bool:
        infinite = (math.inf, "inf", "Infinity", {"__float__": "Infinity"})
        return (
            isinstance(value, list) and len(value) == 2 and value[0] == 0 and value[1] in infinite
        )


def read(config: Config) -> Config:
    """The arguments of the model."""
    mamba.require_inner(config)
    heads, inner = config["num_heads"], config["expand"] * config["hidden_size"]
    if heads * config["head_dim"] != inner:
        raise KeyProblem(
            f"`num_heads` times `head_dim` is {heads * config['head_dim']}, expected `expand` "
            f"times `hidden_size`, {inner}."
        )
    base.require_divides(config, "n_groups", "num_heads")
    mixer = {
        "type": "mamba2",
        "expand": config["expand"],
        "head_dim": config["head_dim"],
        "state_dim": config["state_size"],
        "num_groups": config["n_groups"],
        "conv_taps": config["conv_kernel"],
        "use_bias": config["use_bias"],
        "conv_bias": config["use_conv_bias"],
        "epsilon": float(config["layer_norm_epsilon"]),
    }
    return base.read_model(config, [[mixer]], "layer_norm_epsilon")


def write(model: Config) -> Config:
    """The keys of the configuration."""
    mixer = model["blocks"][0]["mixer"]
    inner = mixer["expand"] * model["width"]
    return {
        **base.write_model(model, 1, "layer_norm_epsilon"),
        "expand": mixer["expand"],
        "num_heads": inner // mixer["head_dim"],
        "head_dim": mixer["head_dim"],
        "state_size": mixer["state_dim"],
        "n_groups": mixer["num_groups"],
        "conv_kernel": mixer["conv_taps"],
        "use_conv_bias": mixer["conv_bias"],
        "use_bias": mixer["use_bias"],
    }


FAMILY = Family(
    model_type="mamba2",
    architecture="Mamba2ForCausalLM",
    keys={
        **mamba.KEYS,
        "vocab_size": Whole(32768, most=1 << 24),
        "hidden_size": Whole(4096),
        "num_hidden_layers": Whole(64, most=4096),
        "num_heads": Whole(128),
        "head_dim": Whole(64),
        "state_size": Whole(128, most=1 << 14),
        "n_groups": Whole(8),
        "time_step_limit": NoLimit(),
        "tie_word_embeddings": Flag(False),
        "chunk_size": IGNORED,
        "norm_before_gate": IGNORED,
        "time_step_rank": IGNORED,
    },
    read=read,
    write=write,
    outer=mamba.OUTER,
    prefix="backbone.layers.{}.",
    rules={
        "mamba2": (
            *mamba.MIXER,
            Rule("mixer.dt_bias", "mixer.step_bias"),
            GroupRows("mixer.norm.weight", "mixer.norm.gamma"),
        )
    },
    blocks_a_layer=1,
)
