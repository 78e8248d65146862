"""RWKV-4 (Peng et al. 2023, arXiv 2305.13048)."""

from __future__ import annotations

from ember_keras.models.pretrained.families import base
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import IGNORED, Flag, Number, Whole
from ember_keras.models.pretrained.rules import Channels, Matrix, Rule

LAST_EPSILON = 1e-5
"""Of the norm after all layers, whatever `layer_norm_epsilon` says."""


def _norm(epsilon: float) -> Config:
    return {"type": "layer_norm", "epsilon": epsilon}


def read(config: Config) -> Config:
    """The arguments of the model."""
    width = config["hidden_size"]
    norm = _norm(float(config["layer_norm_epsilon"]))
    mixers = [
        {"type": "rwkv4_time_mixer", "inner_dim": config["attention_hidden_size"] or width},
        {"type": "rwkv4_channel_mixer", "hidden_dim": config["intermediate_size"] or 4 * width},
    ]
    return base.read_model(
        config,
        [[{"type": "block", "mixer": mixer, "norm": norm} for mixer in mixers]],
        "layer_norm_epsilon",
        norm=_norm(LAST_EPSILON),
        embedding_norm=norm,
    )


def write(model: Config) -> Config:
    """The keys of the configuration."""
    time, channel, *_ = (block["mixer"] for block in model["blocks"])
    return {
        **base.write_model(model, 2, "layer_norm_epsilon"),
        "layer_norm_epsilon": model["blocks"][0]["norm"]["epsilon"],
        "attention_hidden_size": time["inner_dim"],
        "intermediate_size": channel["hidden_dim"],
        "rescale_every": 0,
    }


def _block(module: str, norm: str, *kernels: str) -> tuple[Rule, ...]:
    return (
        *(Matrix(f"{module}.{theirs}.weight", f"mixer.{theirs}.kernel") for theirs in kernels),
        *(Channels(f"{module}.time_mix_{name}", f"mixer.mu_{name}") for name in kernels),
        Rule(f"{norm}.weight", "norm.gamma"),
        Rule(f"{norm}.bias", "norm.beta"),
    )


FAMILY = Family(
    model_type="rwkv",
    architecture="RwkvForCausalLM",
    keys={
        "vocab_size": Whole(50277, most=1 << 24),
        "hidden_size": Whole(4096),
        "num_hidden_layers": Whole(32, most=4096),
        "attention_hidden_size": Whole(None),
        "intermediate_size": Whole(None),
        "layer_norm_epsilon": Number(1e-5),
        "tie_word_embeddings": Flag(False),
        "context_length": IGNORED,
        "rescale_every": IGNORED,
    },
    read=read,
    write=write,
    outer=(
        Rule("rwkv.embeddings.weight", "embedding.embeddings"),
        Rule("rwkv.blocks.0.pre_ln.weight", "embedding_norm.gamma"),
        Rule("rwkv.blocks.0.pre_ln.bias", "embedding_norm.beta"),
        Rule("rwkv.ln_out.weight", "backbone.final_norm.gamma"),
        Rule("rwkv.ln_out.bias", "backbone.final_norm.beta"),
        Matrix("head.weight", "embedding.reverse_embeddings"),
    ),
    head="head.weight",
    prefix="rwkv.blocks.{}.",
    rules={
        "rwkv4_time_mixer": (
            *_block("attention", "ln1", "receptance", "key", "value"),
            Matrix("attention.output.weight", "mixer.output_projection.kernel"),
            Rule("attention.time_decay", "mixer.log_rate"),
            Rule("attention.time_first", "mixer.bonus"),
        ),
        "rwkv4_channel_mixer": (
            *_block("feed_forward", "ln2", "receptance", "key"),
            Matrix("feed_forward.value.weight", "mixer.value.kernel"),
        ),
    },
)
