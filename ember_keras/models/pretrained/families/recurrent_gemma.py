"""RecurrentGemma (Botev et al. 2024, arXiv 2404.07839), which is Griffin."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ember_keras.models.pretrained.families import base
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import (
    IGNORED,
    Choice,
    Fixed,
    Flag,
    Key,
    Number,
    Twin,
    Whole,
)
from ember_keras.models.pretrained.rules import AlongLast, Matrix, Rule, Taps

KINDS = {"recurrent": "rg_lru", "attention": "sliding_attention"}


class BlockTypes(Key):
    """A list of the kinds of the first layers, which the others repeat."""

    expected = f"a list of {' and '.join(map(repr, KINDS))}"

    def allows(self, value: Any) -> bool:
        known = isinstance(value, list) and all(kind in tuple(KINDS) for kind in value)
        return known and 0 < len(value) <= 4096


def embedding_scale(width: int) -> float:
    """sqrt(D), rounded to bfloat16, in which the model was trained."""
    return float(np.asarray(width**0.5, ml_dtypes.bfloat16))


def read(config: Config) -> Config:
    """The arguments of the model."""
    base.require_divides(config, "num_attention_heads", "hidden_size")
    heads = config["num_attention_heads"]
    attention = base.read_attention(
        config,
        fraction=0.5,
        use_bias=config["attention_bias"],
        output_bias=True,
        window=config["attention_window_size"],
    )
    mixers = {
        "attention": {**attention, "type": "sliding_attention"},
        "recurrent": {
            "type": "rg_lru",
            "inner_dim": config["lru_width"] or config["hidden_size"],
            "num_heads": heads,
            "short_taps": config["conv1d_width"],
            "scale_first": False,
        },
    }
    mlp = {
        "type": "gated_mlp",
        "hidden_dim": config["intermediate_size"] // 2,
        "gate": "geglu_tanh",
        "use_bias": True,
    }
    return base.read_model(
        config,
        [[mixers[kind], mlp] for kind in config["block_types"]],
        "rms_norm_eps",
        "zero_centred_rms_norm",
        embedding_scale=embedding_scale(config["hidden_size"]),
        logit_cap=float(config["logits_soft_cap"]),
    )


def write(model: Config) -> Config:
    """The keys of the configuration."""
    mixers = [block["mixer"] for block in model["blocks"]]
    kinds = {ours: theirs for theirs, ours in KINDS.items()}
    config = {
        **base.write_model(model, 2, "rms_norm_eps"),
        "block_types": base.period([kinds[mixer["type"]] for mixer in mixers[::2]]),
        "intermediate_size": 2 * mixers[1]["hidden_dim"],
        "logits_soft_cap": model["logit_cap"],
    }
    for mixer in mixers[::2]:
        if mixer["type"] == "sliding_attention":
            config.update(
                base.write_attention(mixer),
                attention_window_size=mixer["window"],
                attention_bias=mixer["use_bias"],
            )
        else:
            config.update(
                num_attention_heads=mixer["num_heads"],
                lru_width=mixer["inner_dim"],
                conv1d_width=mixer["short_taps"],
            )
    return config


def _linear(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Matrix(f"temporal_block.{theirs}.weight", f"mixer.{ours}.kernel"),
        Rule(f"temporal_block.{theirs}.bias", f"mixer.{ours}.bias"),
    )


def _gates(kind: str, variable: str) -> Rule:
    names = (f"temporal_block.rg_lru.{gate}_gate_{kind}" for gate in ("recurrent", "input"))
    return AlongLast(" ".join(names), variable)


FAMILY = Family(
    model_type="recurrent_gemma",
    architecture="RecurrentGemmaForCausalLM",
    keys={
        **base.HEADS,
        "vocab_size": Whole(256000, most=1 << 24),
        "hidden_size": Whole(2560),
        "intermediate_size": Whole(7680, least=2),
        "num_hidden_layers": Whole(26, most=4096),
        "num_attention_heads": Whole(10, most=1 << 14),
        "lru_width": Whole(None),
        "attention_window_size": Whole(2048, most=1 << 30),
        "conv1d_width": Whole(4, most=1 << 10),
        "logits_soft_cap": Number(30.0),
        "rms_norm_eps": Number(1e-6),
        "hidden_activation": Choice("gelu_pytorch_tanh", choices=("gelu_pytorch_tanh",)),
        "block_types": BlockTypes(["recurrent", "recurrent", "attention"]),
        "attention_bias": Flag(False),
        "tie_word_embeddings": Flag(True),
        "embeddings_scale_by_sqrt_dim": Fixed(True),
        "sliding_window": Twin(of="attention_window_size"),
        "layer_types": IGNORED,
        "layers_block_type": IGNORED,
        "w_init_variance_scale": IGNORED,
        "final_w_init_variance_scale": IGNORED,
    },
    read=read,
    write=write,
    outer=(
        Rule("model.embed_tokens.weight", "embedding.embeddings"),
        Rule("model.final_norm.weight", "backbone.final_norm.scale"),
        Matrix("lm_head.weight", "embedding.reverse_embeddings"),
    ),
    prefix="model.layers.{}.",
    rules={
        "sliding_attention": base.attention_rules("temporal_block", "temporal_pre_norm"),
        "rg_lru": (
            *_linear("linear_x", "input_projection"),
            *_linear("linear_y", "gate_projection"),
            *_linear("linear_out", "output_projection"),
            Taps("temporal_block.conv_1d.weight", "mixer.short_convolution.kernel"),
            Rule("temporal_block.conv_1d.bias", "mixer.short_convolution.bias"),
            _gates("weight", "mixer.gate_kernel"),
            _gates("bias", "mixer.gate_bias"),
            Rule("temporal_block.rg_lru.recurrent_param", "mixer.log_decay"),
            Rule("temporal_pre_norm.weight", "norm.scale"),
        ),
        "gated_mlp": base.gated_mlp_rules("mlp_block", "channel_pre_norm"),
    },
)
