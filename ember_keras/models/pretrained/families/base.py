"""What a family of checkpoints is, and what several of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ember_keras.models.pretrained import rotary
from ember_keras.models.pretrained.keys import Choice, Fixed, Flag, Key, KeyProblem, Number, Whole
from ember_keras.models.pretrained.rules import (
    EndToEnd,
    Experts,
    Matrix,
    Rule,
    SideBySide,
    Unsaved,
)

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
        head: str, the name of the head, which may be there beside an embedding that it is tied to.
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
    head: str = "lm_head.weight"


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
OUTER = (
    Rule("model.embed_tokens.weight", "embedding.embeddings"),
    Rule("model.norm.weight", "backbone.final_norm.scale"),
    Matrix("lm_head.weight", "embedding.reverse_embeddings"),
)


def attention_rules(module: str, norm: str, *queries: Rule) -> tuple[Rule, ...]:
    """The rules of an attention.

    Args:
        module: str, the name of the module.
        norm: str, the name of the norm before it.
        *queries: the rules of the queries, where they are not a map alone.
    """
    queries = queries or (
        Matrix(f"{module}.q_proj.weight", "mixer.query.kernel"),
        Rule(f"{module}.q_proj.bias", "mixer.query.bias"),
    )
    return (
        *queries,
        Matrix(f"{module}.k_proj.weight", "mixer.key.kernel"),
        Matrix(f"{module}.v_proj.weight", "mixer.value.kernel"),
        Matrix(f"{module}.o_proj.weight", "mixer.output_projection.kernel"),
        Rule(f"{module}.k_proj.bias", "mixer.key.bias"),
        Rule(f"{module}.v_proj.bias", "mixer.value.bias"),
        Rule(f"{module}.o_proj.bias", "mixer.output_projection.bias"),
        Rule(f"{norm}.weight", "norm.scale"),
    )


def gated_mlp_rules(module: str, norm: str) -> tuple[Rule, ...]:
    """The rules of a gated perceptron, as those of `attention_rules`."""
    return (
        SideBySide(f"{module}.gate_proj.weight {module}.up_proj.weight", "mixer.gate_up.kernel"),
        EndToEnd(f"{module}.gate_proj.bias {module}.up_proj.bias", "mixer.gate_up.bias"),
        Matrix(f"{module}.down_proj.weight", "mixer.down.kernel"),
        Rule(f"{module}.down_proj.bias", "mixer.down.bias"),
        Rule(f"{norm}.weight", "norm.scale"),
    )


ATTENTION = attention_rules("self_attn", "input_layernorm")
GATED_MLP = gated_mlp_rules("mlp", "post_attention_layernorm")


def require_divides(config: Config, part: str, whole: str) -> None:
    """Refuses a number that does not divide another one."""
    if config[whole] % config[part]:
        raise KeyProblem(f"`{part}` is {config[part]}, which does not divide {config[whole]}.")


def read_model(
    config: Config, layers: list[list[Any]], epsilon: str, norm: Any = "rms_norm", **more: Any
) -> Config:
    """The arguments of a `CausalLM`.

    Args:
        config: dict, the values of all keys.
        layers: list of lists, the blocks of each of the first layers, which the others repeat.
        epsilon: str, the key of the norms' epsilon.
        norm: str, the name of the norms; or a dict, the norms in full, whatever `epsilon` says.
        **more: other arguments, in the place of those of most families.
    """
    count = config["num_hidden_layers"]
    whole = count % len(layers) == 0
    if not whole:
        layers = (layers * -(-count // len(layers)))[:count]
    if isinstance(norm, str):
        norm = {"type": norm, "epsilon": float(config[epsilon])}
    return {
        "vocab_size": config["vocab_size"],
        "width": config["hidden_size"],
        "blocks": [block for layer in layers for block in layer],
        "repeats": count // len(layers),
        "norm": norm,
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


def read_attention(
    config: Config, base: float = 10000.0, fraction: float | None = None, **more: Any
) -> Config:
    """The configuration of an `Attention`.

    Args:
        config: dict, the values of all keys.
        base: float, `rope_theta` where there is none.
        fraction: float, `partial_rotary_factor` where there is none; None where the family turns
            all of a head's channels.
        **more: other arguments of the attention.
    """
    if config["head_dim"] is None:
        require_divides(config, "num_attention_heads", "hidden_size")
    heads = config["num_attention_heads"]
    turned = rotary.read(config, base, fraction or 1.0)
    if fraction is None and turned["rotary_fraction"] != 1:
        raise KeyProblem(
            f"`partial_rotary_factor` is {turned['rotary_fraction']}, expected 1 or none: this "
            "family turns all of a head."
        )
    size = config["head_dim"] or config["hidden_size"] // heads
    if int(size * turned["rotary_fraction"]) % 2:
        raise KeyProblem(
            f"`head_dim` is {size}, of which {turned['rotary_fraction']} are turned, expected an "
            "even number: channels are turned in pairs."
        )
    return {
        "type": "attention",
        "num_heads": heads,
        "num_kv_heads": config["num_key_value_heads"] or heads,
        "head_dim": size,
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


def read_mixture(config: Config, experts: str, hidden: str, normalize: bool) -> Config:
    """The configuration of a mixture of gated perceptrons that a softmax chooses among.

    Args:
        config: dict, the values of all keys.
        experts: str, the key of how many there are.
        hidden: str, the key of their hidden width.
        normalize: bool, whether the weights of the chosen ones sum to 1.
    """
    return {
        "type": "mixture_of_experts",
        "num_experts": config[experts],
        "top_k": config["num_experts_per_tok"],
        "expert": {**read_gated_mlp(config), "hidden_dim": config[hidden]},
        "router": {"type": "softmax", "normalize": normalize},
    }


def mixture_rules(module: str, gate_up: str, down: str, norm: str) -> tuple[Rule, ...]:
    """The rules of a mixture of experts.

    Args:
        module: str, the name of the module.
        gate_up: str, the names of an expert's first two maps.
        down: str, the name of its last one.
        norm: str, the name of the norm before it.
    """
    first = " ".join(f"{module}.experts.{{}}.{name}.weight" for name in gate_up.split())
    return (
        Matrix(f"{module}.gate.weight", "mixer.router.kernel"),
        Experts(first, "mixer.stacks.0.gate_up"),
        Experts(f"{module}.experts.{{}}.{down}.weight", "mixer.stacks.0.down"),
        Unsaved("", "mixer.use"),
        Rule(f"{norm}.weight", "norm.scale"),
    )


def period(kinds: list[Any]) -> list[Any]:
    """The shortest list that, repeated and cut, is the list."""
    sizes = range(1, len(kinds) + 1)
    size = next(n for n in sizes if all(kinds[i] == kinds[i % n] for i in range(len(kinds))))
    return kinds[:size]


def write_gated_mlp(mixer: Config) -> Config:
    """The keys of what `read_gated_mlp` reads."""
    gates = [theirs for theirs, ours in ACTIVATIONS.items() if ours == mixer["gate"]]
    return {"intermediate_size": mixer["hidden_dim"], "hidden_act": gates[0]}
