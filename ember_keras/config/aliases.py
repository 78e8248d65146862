"""Names of MAD-Lab (Poli et al. 2024, arXiv 2403.17844) for what is registered here, as data.

An alias stands wherever a name may stand in a configuration: it is replaced by the name that it
stands for, with the options that MAD-Lab means by it, and its arguments by ours. What an argument
asks for and cannot have is refused. A configuration that is written back has our names.
"""

from __future__ import annotations

import dataclasses
from typing import Any

WIDTHS = ("dim", "max_length")
"""What MAD-Lab itself replaces by the model's own before it builds a layer: it changes nothing."""


@dataclasses.dataclass(frozen=True)
class Only:
    """An argument that may be given with these values alone, which are what is computed here."""

    values: tuple[Any, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class Alias:
    """What a name of MAD-Lab stands for.

    Attributes:
        kind: str, the registry of the target.
        target: str, the name there.
        options: dict, arguments of the target where MAD-Lab's differ from its defaults.
        arguments: dict from MAD-Lab's argument to ours, or to the values it may have.
    """

    kind: str
    target: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    arguments: dict[str, str | Only] = dataclasses.field(default_factory=dict)


_NO_DROPOUT = Only((0,), "no dropout stands there; give the block's `dropout` instead")
_ATTENTION: dict[str, str | Only] = {
    "n_heads": "num_heads",
    "num_heads_kv": "num_kv_heads",
    "rotary_emb_base": "rotary_base",
    "rotary_emb_interleaved": Only((False,), "channel i turns with channel i + K//2"),
    "dropout": _NO_DROPOUT,
    "window_size": Only(([-1, -1],), "use `sliding_attention` for a window"),
    "use_flash_attn": Only((True, False), "the kernel does not change what is computed"),
    "cross_attn": Only((False,), "a mixer sees one sequence"),
    "use_alibi": Only((False,), "positions are rotary or none"),
    "dwconv": Only((False,), "no convolution stands before the heads"),
}
_HYENA: dict[str, str | Only] = {
    "short_filter_order": "short_taps",
    "num_heads": Only((1,), "use `multihead_hyena` for heads"),
    "inner_factor": Only((1,), "the inner width is the model's"),
    "proj_groups": Only((1,), "no projection is shared"),
    "num_blocks": Only((1,), "a filter runs along the whole sequence"),
    "fused_bias_fc": Only((True, False), "the kernel does not change what is computed"),
    "outer_mixing": Only((False,), "channels are mixed by the projections"),
    "post_order_ffn": Only((False,), "nothing stands between two gates"),
    "activation": Only(("id", "identity", "linear"), "the output is linear"),
    "dropout": _NO_DROPOUT,
}
_MLP: dict[str, str | Only] = {
    "dim_inner": "hidden_dim",
    "drop_rate": _NO_DROPOUT,
    "bias": "use_bias",
}
_SWIGLU: dict[str, str | Only] = {
    **_MLP,
    "dim_inner": Only((None,), "MAD-Lab ignores it; give `hidden_dim`"),
}
_EXPERTS: dict[str, str | Only] = {
    "active_experts": "top_k",
    "dim_inner": Only((), "no other value; give `expert` with its `hidden_dim`"),
    "drop_rate": Only((0,), "give `expert` with its `dropout`"),
    "act": Only(("gelu",), "give `expert` with its `gate`"),
    "bias": Only((True,), "give `expert` with its `use_bias`"),
}

_RWKV: dict[str, str | Only] = {"dim_inner": "hidden_dim"}
_RWKV_TIME: dict[str, str | Only] = {
    "dim_att": "inner_dim",
    "head_dim_divisor": Only((8,), "give `epsilon`, 1e-5 times its square"),
    "n_layer": Only((1,), "weights start as those of a first layer"),
    "layer_id": Only((0,), "weights start as those of a first layer"),
    "use_jit": Only((True, False), "the kernel does not change what is computed"),
}

_MIXERS, _CHANNELS = "sequence_mixers", "channel_mixers"
ALIASES: dict[str, Alias] = {
    "mh-attention": Alias(
        _MIXERS, "attention", {"num_heads": 16, "use_bias": True}, arguments=_ATTENTION
    ),
    "sliding-attention": Alias(_MIXERS, "sliding_attention", {"num_heads": 1}),
    "mh-sliding-attention": Alias(_MIXERS, "sliding_attention", {"num_heads": 16}),
    "linear-attention": Alias(_MIXERS, "linear_attention", {"num_heads": 1}),
    "mh-linear-attention": Alias(_MIXERS, "linear_attention", {"num_heads": 16}),
    "gated-linear-attention": Alias(_MIXERS, "gated_linear_attention", {"num_heads": 1}),
    "mh-gated-linear-attention": Alias(_MIXERS, "gated_linear_attention", {"num_heads": 8}),
    "mh-hyena": Alias(_MIXERS, "multihead_hyena", {"num_heads": 16}),
    "hyena-experts": Alias(_MIXERS, "hyena_experts"),
    "rwkv5-time-mixer": Alias(_MIXERS, "rwkv5_time_mixer", {"head_dim": 16}, _RWKV_TIME),
    "rwkv6-time-mixer": Alias(_MIXERS, "rwkv6_time_mixer", {"head_dim": 16}, _RWKV_TIME),
    "rwkv5-channel-mixer": Alias(_CHANNELS, "rwkv5_channel_mixer", arguments=_RWKV),
    "rwkv6-channel-mixer": Alias(_CHANNELS, "rwkv6_channel_mixer", arguments=_RWKV),
    "swiglu": Alias(_CHANNELS, "gated_mlp", {"gate": "swiglu"}, arguments=_SWIGLU),
    "moe": Alias(_CHANNELS, "mixture_of_experts"),
    "moe-mlp": Alias(
        _CHANNELS,
        "mixture_of_experts",
        {"expert": {"type": "gated_mlp", "gate": "geglu", "use_bias": True}},
        arguments=_EXPERTS,
    ),
}

SHARED: dict[str, Alias] = {
    "attention": Alias(_MIXERS, "attention", arguments=_ATTENTION),
    "hyena": Alias(_MIXERS, "hyena", arguments=_HYENA),
    "mlp": Alias(_CHANNELS, "mlp", arguments=_MLP),
    "mamba": Alias(_MIXERS, "mamba"),
}
"""Names that both have: they mean what is registered here, and take MAD-Lab's arguments too."""


def find(name: Any, kinds: tuple[str, ...]) -> Alias | None:
    """What `name` stands for among `kinds`, or None where it is no name of MAD-Lab."""
    alias = (ALIASES.get(name) or SHARED.get(name)) if isinstance(name, str) else None
    return alias if alias is not None and alias.kind in kinds else None


def translate(given: dict[str, Any], alias: Alias) -> dict[str, Any]:
    """MAD-Lab's arguments in ours; arguments that it does not know are left as they are.

    Raises:
        KeyError: with an argument's name and, second, the problem with its value.
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key == "rotary_emb_dim" and alias.target == "attention":
            found["rotary"] = _turns(value, given)
            continue
        rule = alias.arguments.get(key)
        if isinstance(rule, Only):
            if value not in rule.values:
                allowed = " or ".join(map(repr, rule.values))
                raise KeyError(key, f"received {value!r}, expected {allowed}: {rule.reason}.")
            continue
        if key in WIDTHS:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise KeyError(key, f"received {value!r}, expected an integer of at least 1.")
            continue
        name = key if rule is None else rule
        if name in found or (name != key and name in given):
            raise KeyError(key, f"this is our `{name}`, which is given too; give one of them.")
        found[name] = value
    return found


def _turns(value: Any, given: dict[str, Any]) -> bool:
    """Whether heads turn, for `rotary_emb_dim`: none of their channels, or all."""
    dim, heads = given.get("dim"), given.get("n_heads", given.get("num_heads", 16))
    if value in (0, None):
        return False
    if isinstance(dim, int) and isinstance(heads, int) and heads > 0 and value == dim // heads:
        return True
    raise KeyError(
        "rotary_emb_dim",
        f"received {value!r}, expected 0 for no rotation, or the whole width of a head, "
        "`dim` / `n_heads`, with both of these beside it; a part of a head is not turned here.",
    )
