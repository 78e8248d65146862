"""What a family of checkpoints is, and what several of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ember_keras.models.pretrained import rotary
from ember_keras.models.pretrained.keys import Choice, Fixed, Flag, Key, KeyProblem, Number, Whole
from ember_keras.models.pretrained.rules import EndToEnd, Matrix, Rule, SideBySide

Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """One `model_type` of transformers.

    Args:
        model_type: str, the name in `config.json`.
        architecture: str, the class of transformers that predicts the next token.
        keys: mapping, the keys of its `config.json`.
        read: callable, from the values of all keys to the arguments of a `CausalLM`.
        write: callable, from a description of a model to the keys of a `config.json`.
        outer: rules of the model itself.
        prefix: str, what the names of layer i begin with.
        rules: mapping, from the registered name of a mixer to the rules of its block.
        blocks_a_layer: int, how many blocks make one layer there.
        ignored: str, a regular expression of tensors that hold no weights.
    """

    model_type: str
    architecture: str
    keys: Mapping[str, Key]
    read: Callable[[Config], Config]
    write: Callable[[Config], Config]
    outer: tuple[Rule, ...]
    prefix: str
    rules: Mapping[str, tuple[Rule, ...]]
    blocks_a_layer: int = 2
    ignored: str = r"(?!)"


ACTIVATIONS = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu",
    "gelu_pytorch_tanh": "geglu_tanh",
    "gelu_new": "geglu_tanh",
    "relu": "reglu",
}
"""The gates of `GatedMLP` by the names of transformers; the first of each is written."""

SIZES: Mapping[str, Key] = {
    "vocab_size": Whole(most=1 << 24),
    "hidden_size": Whole(),
    "num_hidden_layers": Whole(most=4096),
}
HEADS: Mapping[str, Key] = {
    **rotary.KEYS,
    "num_attention_heads": Whole(32, most=1 << 14),
    "num_key_value_heads": Whole(None, most=1 << 14),
    "head_dim": Whole(None, most=1 << 14),
    "attention_dropout": Fixed(0),
}
TRANSFORMER: Mapping[str, Key] = {
    **SIZES,
    **HEADS,
    "intermediate_size": Whole(),
    "hidden_act": Choice("silu", choices=tuple(ACTIVATIONS)),
    "rms_norm_eps": Number(1e-6),
    "tie_word_embeddings": Flag(False),
}
ATTENTION = (
    Matrix("self_attn.q_proj.weight", "mixer.query.kernel"),
    Matrix("self_attn.k_proj.weight", "mixer.key.kernel"),
    Matrix("self_attn.v_proj.weight", "mixer.value.kernel"),
    Matrix("self_attn.o_proj.weight", "mixer.output_projection.kernel"),
    Rule("self_attn.q_proj.bias", "mixer.query.bias"),
    Rule("self_attn.k_proj.bias", "mixer.key.bias"),
    Rule("self_attn.v_proj.bias", "mixer.value.bias"),
    Rule("self_attn.o_proj.bias", "mixer.output_projection.bias"),
    Rule("input_layernorm.weight", "norm.scale"),
)
GATED_MLP = (
    SideBySide("mlp.gate_proj.weight mlp.up_proj.weight", "mixer.gate_up.kernel"),
    EndToEnd("mlp.gate_proj.bias mlp.up_proj.bias", "mixer.gate_up.bias"),
    Matrix("mlp.down_proj.weight", "mixer.down.kernel"),
    Rule("mlp.down_proj.bias", "mixer.down.bias"),
    Rule("post_attention_layernorm.weight", "norm.scale"),
)
OUTER = (
    Rule("model.embed_tokens.weight", "embedding.embeddings"),
    Rule("model.norm.weight", "backbone.final_norm.scale"),
    Matrix("lm_head.weight", "embedding.reverse_embeddings"),
)


def require_divides(config: Config, part: str, whole: str) -> None:
    """Refuses a number that does not divide another one."""
    if config[whole] % config[part]:
        raise KeyProblem(f"`{part}` is {config[part]}, which does not divide {config[whole]}.")


def read_model(config: Config, blocks: list[Any], epsilon: str, **more: Any) -> Config:
    """The arguments of a `CausalLM` whose blocks repeat once a layer."""
    return {
        "vocab_size": config["vocab_size"],
        "width": config["hidden_size"],
        "blocks": blocks,
        "repeats": config["num_hidden_layers"],
        "norm": {"type": "rms_norm", "epsilon": float(config[epsilon])},
        "tie_embeddings": config["tie_word_embeddings"],
        "embedding_scale": 1.0,
        **more,
    }


def write_model(model: Config, blocks_a_layer: int, epsilon: str) -> Config:
    """The keys of what `read_model` reads."""
    return {
        "vocab_size": model["vocab_size"],
        "hidden_size": model["width"],
        "num_hidden_layers": len(model["blocks"]) // blocks_a_layer,
        epsilon: model["norm"].get("epsilon"),
        "tie_word_embeddings": model["tie_embeddings"],
    }


def read_attention(config: Config, base: float = 10000.0, **more: Any) -> Config:
    """The configuration of an `Attention` that turns all of a head's channels."""
    if config["head_dim"] is None:
        require_divides(config, "num_attention_heads", "hidden_size")
    heads = config["num_attention_heads"]
    turned = rotary.read(config, base)
    if turned["rotary_fraction"] != 1:
        raise KeyProblem(
            f"`partial_rotary_factor` is {turned['rotary_fraction']}, expected 1 or none: this "
            "family turns all of a head."
        )
    return {
        "type": "attention",
        "num_heads": heads,
        "num_kv_heads": config["num_key_value_heads"] or heads,
        "head_dim": config["head_dim"] or config["hidden_size"] // heads,
        **turned,
        **more,
    }


def write_attention(mixer: Config) -> Config:
    """The keys of what `read_attention` reads."""
    return {
        "num_attention_heads": mixer["num_heads"],
        "num_key_value_heads": mixer["num_kv_heads"],
        "head_dim": mixer["head_dim"],
        "rope_parameters": rotary.write(mixer),
    }


def read_gated_mlp(config: Config) -> Config:
    """The configuration of a `GatedMLP`."""
    return {
        "type": "gated_mlp",
        "hidden_dim": config["intermediate_size"],
        "gate": ACTIVATIONS[config["hidden_act"]],
    }


def write_gated_mlp(mixer: Config) -> Config:
    """The keys of what `read_gated_mlp` reads."""
    gates = [theirs for theirs, ours in ACTIVATIONS.items() if ours == mixer["gate"]]
    return {"intermediate_size": mixer["hidden_dim"], "hidden_act": gates[0]}
