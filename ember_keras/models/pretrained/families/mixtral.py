"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): Mistral with a mixture in each layer."""

from __future__ import annotations

from ember_keras.models.pretrained.families import base, mistral
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import IGNORED, Number, Whole


def read(config: Config) -> Config:
    """The arguments of the model."""
    attention = mistral.read_windowed(config, 1e6)
    mixture = base.read_mixture(config, "num_local_experts", "intermediate_size", True)
    return base.read_model(config, [[attention, mixture]], "rms_norm_eps")


def write(model: Config) -> Config:
    """The keys of the configuration."""
    attention, mixture = (block["mixer"] for block in model["blocks"][:2])
    return {
        **base.write_model(model, 2, "rms_norm_eps"),
        **base.write_attention(attention),
        **base.write_gated_mlp(mixture["expert"]),
        "sliding_window": attention.get("window"),
        "num_local_experts": mixture["num_experts"],
        "num_experts_per_tok": mixture["top_k"],
    }


FAMILY = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    keys={
        **mistral.FAMILY.keys,
        "sliding_window": Whole(None, most=1 << 30),
        "rms_norm_eps": Number(1e-5),
        "num_local_experts": Whole(8),
        "num_experts_per_tok": Whole(2),
        "output_router_logits": IGNORED,
        "router_aux_loss_coef": IGNORED,
        "router_jitter_noise": IGNORED,
    },
    read=read,
    write=write,
    outer=base.OUTER,
    prefix="model.layers.{}.",
    rules={
        "attention": base.ATTENTION,
        "sliding_attention": base.ATTENTION,
        "mixture_of_experts": base.mixture_rules(
            "block_sparse_moe", "w1 w3", "w2", "post_attention_layernorm"
        ),
    },
)
