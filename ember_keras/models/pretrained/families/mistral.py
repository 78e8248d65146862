"""Mistral (Jiang et al. 2023, arXiv 2310.06825)."""

from __future__ import annotations

from ember_keras.models.pretrained.families import base
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import Number, Whole


def read_windowed(config: Config, default_base: float = 10000.0) -> Config:
    """The configuration of the attention, which has a window or none."""
    attention = base.read_attention(config, default_base)
    if config["sliding_window"] is not None:
        attention.update(type="sliding_attention", window=config["sliding_window"])
    return attention


def read(config: Config) -> Config:
    """The arguments of the model."""
    blocks = [read_windowed(config), base.read_gated_mlp(config)]
    return base.read_model(config, [blocks], "rms_norm_eps")


def write(model: Config) -> Config:
    """The keys of the configuration."""
    attention, mlp = (block["mixer"] for block in model["blocks"][:2])
    return {
        **base.write_model(model, 2, "rms_norm_eps"),
        **base.write_attention(attention),
        **base.write_gated_mlp(mlp),
        "sliding_window": attention.get("window"),
    }


FAMILY = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    keys={
        **base.TRANSFORMER,
        "vocab_size": Whole(32000, most=1 << 24),
        "hidden_size": Whole(4096),
        "intermediate_size": Whole(14336),
        "num_hidden_layers": Whole(32, most=4096),
        "num_key_value_heads": Whole(8, most=1 << 14, none=True),
        "sliding_window": Whole(4096, most=1 << 30, none=True),
        "rms_norm_eps": Number(1e-6),
    },
    read=read,
    write=write,
    outer=base.OUTER,
    prefix="model.layers.{}.",
    rules={
        "attention": base.ATTENTION,
        "sliding_attention": base.ATTENTION,
        "gated_mlp": base.GATED_MLP,
    },
    ignored=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)
