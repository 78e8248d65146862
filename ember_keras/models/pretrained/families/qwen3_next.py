"""Qwen3-Next (Qwen Team 2025): three layers of Gated DeltaNet to one of gated attention."""

from __future__ import annotations

from typing import Any

from ember_keras.models.pretrained.families import base
from ember_keras.models.pretrained.families.base import Config, Family
from ember_keras.models.pretrained.keys import IGNORED, Flag, Key, KeyProblem, Number, Whole
from ember_keras.models.pretrained.rules import Interleaved, Matrix, Rule, SideBySide, Taps

KINDS = {"linear_attention": "gated_delta_net", "full_attention": "attention"}


class LayerTypes(Key):
    """A list of the kinds of all layers, or None."""

    expected = f"a list of {' and '.join(map(repr, KINDS))}, one a layer"

    def allows(self, value: Any) -> bool:
        return isinstance(value, list) and all(kind in tuple(KINDS) for kind in value)


class LayerNumbers(Key):
    """A list of numbers of layers, or None."""

    expected = "a list of numbers of layers"

    def allows(self, value: Any) -> bool:
        return isinstance(value, list) and all(type(number) is int for number in value)


def kinds(config: Config) -> list[str]:
    """The kind of each layer."""
    count, interval = config["num_hidden_layers"], config["full_attention_interval"]
    found = config["layer_types"]
    if found is None:
        pattern = ("linear_attention", "full_attention")
        found = [pattern[(i + 1) % interval == 0] for i in range(count)]
    if len(found) != count:
        raise KeyProblem(f"`layer_types` has {len(found)} layers, expected {count}.")
    return found


def sparse(config: Config) -> list[bool]:
    """Whether each layer has a mixture of experts."""
    step, dense = config["decoder_sparse_step"], set(config["mlp_only_layers"] or ())
    return [
        i not in dense and config["num_experts"] > 0 and (i + 1) % step == 0
        for i in range(config["num_hidden_layers"])
    ]


def read(config: Config) -> Config:
    """The arguments of the model."""
    base.require_divides(config, "linear_num_key_heads", "linear_num_value_heads")
    silu = base.ACTIVATIONS[config["hidden_act"]] == base.ACTIVATIONS["silu"]
    if "linear_attention" in kinds(config) and not silu:
        raise KeyProblem(
            f"`hidden_act` is {config['hidden_act']!r}, expected 'silu': transformers gives it to "
            "the short convolution of Gated DeltaNet too, which has SiLU alone here."
        )
    epsilon = float(config["rms_norm_eps"])
    norm = {"type": "zero_centred_rms_norm", "epsilon": epsilon}
    attention = base.read_attention(
        config,
        fraction=0.25,
        use_bias=config["attention_bias"],
        head_norm=norm,
        output_gate=True,
    )
    delta = {
        "type": "gated_delta_net",
        "num_heads": config["linear_num_value_heads"],
        "num_key_heads": config["linear_num_key_heads"],
        "key_dim": config["linear_key_head_dim"],
        "value_dim": config["linear_value_head_dim"],
        "conv_taps": config["linear_conv_kernel_dim"],
        "epsilon": epsilon,
    }
    mixers = {"full_attention": attention, "linear_attention": delta}
    channels = {False: base.read_gated_mlp(config), True: {}}
    plan = list(zip(kinds(config), sparse(config), strict=True))
    if any(mixed for _, mixed in plan):
        normalize = config["norm_topk_prob"]
        mixture = base.read_mixture(config, "num_experts", "moe_intermediate_size", normalize)
        shared = config["shared_expert_intermediate_size"]
        mixture["shared_expert"] = {
            **base.read_gated_mlp(config),
            "hidden_dim": shared,
            "output_gate": True,
        }
        channels[True] = mixture
    layers = [[mixers[kind], channels[mixed]] for kind, mixed in base.period(plan)]
    return base.read_model(config, layers, "rms_norm_eps", "zero_centred_rms_norm")


def write(model: Config) -> Config:
    """The keys of the configuration."""
    mixers = [block["mixer"] for block in model["blocks"]]
    names = {ours: theirs for theirs, ours in KINDS.items()}
    config = {
        **base.write_model(model, 2, "rms_norm_eps"),
        "layer_types": [names[mixer["type"]] for mixer in mixers[::2]],
        "mlp_only_layers": [
            i for i, mixer in enumerate(mixers[1::2]) if mixer["type"] == "gated_mlp"
        ],
        "num_experts": 0,
    }
    for mixer in mixers[1::2]:
        if mixer["type"] == "gated_mlp":
            config.update(base.write_gated_mlp(mixer))
        else:
            config.update(
                num_experts=mixer["num_experts"],
                num_experts_per_tok=mixer["top_k"],
                norm_topk_prob=mixer["router"].get("normalize"),
                moe_intermediate_size=mixer["expert"]["hidden_dim"],
                shared_expert_intermediate_size=mixer["shared_expert"]["hidden_dim"],
                hidden_act=base.write_gated_mlp(mixer["expert"])["hidden_act"],
            )
    for mixer in mixers[::2]:
        if mixer["type"] == "attention":
            config.update(base.write_attention(mixer), attention_bias=mixer["use_bias"])
        else:
            config.update(
                linear_num_value_heads=mixer["num_heads"],
                linear_num_key_heads=mixer["num_key_heads"],
                linear_key_head_dim=mixer["key_dim"],
                linear_value_head_dim=mixer["value_dim"],
                linear_conv_kernel_dim=mixer["conv_taps"],
            )
    return config


def _queries(mixer: Any) -> tuple[int, list[int]]:
    size = mixer.query.units // mixer.num_heads
    return mixer.num_heads, [size, size]


def _both_maps(mixer: Any) -> tuple[int, list[int]]:
    heads = mixer.num_key_heads or mixer.num_heads
    values = mixer.gate.units // heads
    keys = (mixer.input_projection.units // heads - values) // 2
    return heads, [keys, keys, values, values]


def _both_gates(mixer: Any) -> tuple[int, list[int]]:
    heads = mixer.num_key_heads or mixer.num_heads
    return heads, [mixer.num_heads // heads] * 2


FAMILY = Family(
    model_type="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    keys={
        **base.TRANSFORMER,
        "vocab_size": Whole(151936, most=1 << 24),
        "hidden_size": Whole(2048),
        "intermediate_size": Whole(5632),
        "num_hidden_layers": Whole(48, most=4096),
        "num_attention_heads": Whole(16, most=1 << 14),
        "num_key_value_heads": Whole(2, most=1 << 14),
        "head_dim": Whole(256, most=1 << 14),
        "rms_norm_eps": Number(1e-6),
        "attention_bias": Flag(False),
        "linear_conv_kernel_dim": Whole(4, most=1 << 10),
        "linear_key_head_dim": Whole(128, most=1 << 14),
        "linear_value_head_dim": Whole(128, most=1 << 14),
        "linear_num_key_heads": Whole(16, most=1 << 14),
        "linear_num_value_heads": Whole(32, most=1 << 14),
        "num_experts": Whole(512, least=0),
        "decoder_sparse_step": Whole(1),
        "moe_intermediate_size": Whole(512),
        "shared_expert_intermediate_size": Whole(512),
        "num_experts_per_tok": Whole(10),
        "norm_topk_prob": Flag(True),
        "mlp_only_layers": LayerNumbers(),
        "layer_types": LayerTypes(),
        "full_attention_interval": Whole(4),
        "output_router_logits": IGNORED,
        "router_aux_loss_coef": IGNORED,
    },
    read=read,
    write=write,
    outer=base.OUTER,
    prefix="model.layers.{}.",
    rules={
        "attention": (
            *base.attention_rules(
                "self_attn",
                "input_layernorm",
                Interleaved(
                    "self_attn.q_proj.weight", "mixer.query.kernel mixer.gate.kernel", _queries
                ),
                Interleaved("self_attn.q_proj.bias", "mixer.query.bias mixer.gate.bias", _queries),
            ),
            Rule("self_attn.q_norm.weight", "mixer.query_norm.scale"),
            Rule("self_attn.k_norm.weight", "mixer.key_norm.scale"),
        ),
        "gated_delta_net": (
            Interleaved(
                "linear_attn.in_proj_qkvz.weight",
                "mixer.input_projection.kernel mixer.gate.kernel",
                _both_maps,
                (3, 1),
            ),
            Interleaved(
                "linear_attn.in_proj_ba.weight",
                "mixer.beta.kernel mixer.decay.kernel",
                _both_gates,
            ),
            Taps("linear_attn.conv1d.weight", "mixer.short_convolution.kernel"),
            Rule("linear_attn.A_log", "mixer.log_rate"),
            Rule("linear_attn.dt_bias", "mixer.step_bias"),
            Rule("linear_attn.norm.weight", "mixer.norm.gamma"),
            Matrix("linear_attn.out_proj.weight", "mixer.output_projection.kernel"),
            Rule("input_layernorm.weight", "norm.scale"),
        ),
        "gated_mlp": base.GATED_MLP,
        "mixture_of_experts": (
            *base.mixture_rules(
                "mlp", "gate_proj up_proj", "down_proj", "post_attention_layernorm"
            ),
            SideBySide(
                "mlp.shared_expert.gate_proj.weight mlp.shared_expert.up_proj.weight",
                "mixer.shared_expert.gate_up.kernel",
            ),
            Matrix("mlp.shared_expert.down_proj.weight", "mixer.shared_expert.down.kernel"),
            Matrix("mlp.shared_expert_gate.weight", "mixer.shared_expert.scalar_gate.kernel"),
        ),
    },
    ignored=r"mtp\..*",
)
