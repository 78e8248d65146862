"""Mamba (Gu and Dao 2023, arXiv 2312.00752)."""

from __future__ import annotations

from collections.abc import Mapping

from ember_keras.models.pretrained.families import base
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import (
    IGNORED,
    Choice,
    Fixed,
    Flag,
    Key,
    KeyProblem,
    Number,
    Twin,
    Whole,
)
from ember_keras.models.pretrained.rules import Matrix, Rule, Taps

KEYS: Mapping[str, Key] = {
    **base.SIZES,
    "layer_norm_epsilon": Number(1e-5),
    "expand": Whole(2, most=1 << 10),
    "conv_kernel": Whole(4, most=1 << 10),
    "use_bias": Flag(False),
    "use_conv_bias": Flag(True),
    "hidden_act": Choice("silu", choices=("silu", "swish")),
    "rms_norm": Fixed(True),
    "ssm_cfg": Fixed({}),
    "d_model": Twin(of="hidden_size"),
    "d_inner": Twin(of="intermediate_size"),
    "n_layer": Twin(of="num_hidden_layers"),
    "intermediate_size": Whole(None),
    **dict.fromkeys(
        """
        fused_add_norm pad_vocab_size_multiple rescale_prenorm_residual residual_in_fp32
        time_step_floor time_step_init_scheme time_step_max time_step_min
        """.split(),
        IGNORED,
    ),
}
OUTER = (
    Rule("backbone.embeddings.weight", "embedding.embeddings"),
    Rule("backbone.norm_f.weight", "backbone.final_norm.scale"),
    Matrix("lm_head.weight", "embedding.reverse_embeddings"),
)
MIXER = (
    Matrix("mixer.in_proj.weight", "mixer.input_projection.kernel"),
    Rule("mixer.in_proj.bias", "mixer.input_projection.bias"),
    Taps("mixer.conv1d.weight", "mixer.short_convolution.kernel"),
    Rule("mixer.conv1d.bias", "mixer.short_convolution.bias"),
    Matrix("mixer.out_proj.weight", "mixer.output_projection.kernel"),
    Rule("mixer.out_proj.bias", "mixer.output_projection.bias"),
    Rule("mixer.A_log", "mixer.log_rate"),
    Rule("mixer.D", "mixer.skip"),
    Rule("norm.weight", "norm.scale"),
)


def require_inner(config: Config) -> None:
    """Refuses an inner width that is not the model width times `expand`."""
    expected = config["expand"] * config["hidden_size"]
    if config["intermediate_size"] not in (None, expected):
        raise KeyProblem(
            f"`intermediate_size` is {config['intermediate_size']}, expected `expand` times "
            f"`hidden_size`, {expected}."
        )


def read(config: Config) -> Config:
    """The arguments of the model."""
    require_inner(config)
    rank = config["time_step_rank"]
    mixer = {
        "type": "mamba",
        "expansion": config["expand"],
        "state_dim": config["state_size"],
        "dt_rank": -(-config["hidden_size"] // 16) if rank == "auto" else rank,
        "short_taps": config["conv_kernel"],
        "conv_bias": config["use_conv_bias"],
        "use_bias": config["use_bias"],
    }
    return base.read_model(config, [[mixer]], "layer_norm_epsilon")


def write(model: Config) -> Config:
    """The keys of the configuration."""
    mixer = model["blocks"][0]["mixer"]
    return {
        **base.write_model(model, 1, "layer_norm_epsilon"),
        "expand": mixer["expansion"],
        "intermediate_size": mixer["expansion"] * model["width"],
        "state_size": mixer["state_dim"],
        "time_step_rank": mixer["dt_rank"],
        "conv_kernel": mixer["short_taps"],
        "use_conv_bias": mixer["conv_bias"],
        "use_bias": mixer["use_bias"],
    }


FAMILY = Family(
    model_type="mamba",
    architecture="MambaForCausalLM",
    keys={
        **KEYS,
        "vocab_size": Whole(50280, most=1 << 24),
        "hidden_size": Whole(768),
        "num_hidden_layers": Whole(32, most=4096),
        "state_size": Whole(16, most=1 << 14),
        "time_step_rank": Whole("auto"),
        "time_step_scale": IGNORED,
        "use_mambapy": IGNORED,
        "use_associative_scan": IGNORED,
        "tie_word_embeddings": Flag(True),
    },
    read=read,
    write=write,
    outer=OUTER,
    prefix="backbone.layers.{}.",
    rules={
        "mamba": (
            *MIXER,
            Matrix("mixer.x_proj.weight", "mixer.selection.kernel"),
            Matrix("mixer.dt_proj.weight", "mixer.step_projection.kernel"),
            Rule("mixer.dt_proj.bias", "mixer.log_step_bias"),
        )
    },
    blocks_a_layer=1,
)
