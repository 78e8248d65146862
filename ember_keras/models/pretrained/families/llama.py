"""Llama (Touvron et al. 2023, arXiv 2302.13971), 2, 3 and later models of the same shape."""

from __future__ import annotations

from ember_keras.models.pretrained.families import base
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import IGNORED, Flag, Whole


def read(config: Config) -> Config:
    """The arguments of the model."""
    attention = base.read_attention(config, use_bias=config["attention_bias"])
    mlp = {**base.read_gated_mlp(config), "use_bias": config["mlp_bias"]}
    return base.read_model(config, [[attention, mlp]], "rms_norm_eps")


def write(model: Config) -> Config:
    """The keys of the configuration."""
    attention, mlp = (block["mixer"] for block in model["blocks"][:2])
    return {
        **base.write_model(model, 2, "rms_norm_eps"),
        **base.write_attention(attention),
        **base.write_gated_mlp(mlp),
        "attention_bias": attention["use_bias"],
        "mlp_bias": mlp["use_bias"],
    }


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    keys={
        **base.TRANSFORMER,
        "vocab_size": Whole(32000, most=1 << 24),
        "hidden_size": Whole(4096),
        "intermediate_size": Whole(11008),
        "num_hidden_layers": Whole(32, most=4096),
        "attention_bias": Flag(False),
        "mlp_bias": Flag(False),
        "pretraining_tp": IGNORED,
    },
    read=read,
    write=write,
    outer=base.OUTER,
    prefix="model.layers.{}.",
    rules={"attention": base.ATTENTION, "gated_mlp": base.GATED_MLP},
    ignored=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)
