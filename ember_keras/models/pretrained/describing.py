"""What a model is, in full: every argument of its parts that matters to its outputs."""

from __future__ import annotations

from typing import Any

from ember_keras import registry

_TRAINING = set(
    """
    capacity_factor dropout load_balance max_radius max_step min_radius min_step scale
    stochastic_depth z_loss
    """.split()
)
"""Arguments that matter to training alone: to what is dropped, to losses beside the model's own,
and to where weights start."""
_PARTS = {
    "expert": ("experts", "channel_mixers", "sequence_mixers", "blocks"),
    "shared_expert": ("channel_mixers", "sequence_mixers", "blocks", "experts"),
    "router": ("routers",),
}
"""The parts of a mixture of experts, and where their names may stand."""


def describe(model: Any) -> dict[str, Any]:
    """The arguments of a `CausalLM` and of each of its blocks, none left to a default.

    Two models with equal descriptions compute the same with the same weights.
    """
    width = model.width
    return {
        "vocab_size": model.vocab_size,
        "width": width,
        "tie_embeddings": model.tie_embeddings,
        "embedding_scale": float(model.embedding_scale or width**0.5),
        "logit_cap": model.logit_cap,
        "embedding_norm": _norm(model.embedding_norm, width),
        "norm": _norm(model.backbone.final_norm, width),
        "blocks": [_block(block, width) for block in model.backbone.stack],
    }


def first_difference(found: Any, expected: Any, path: str = "") -> str | None:
    """Where two descriptions differ, and how, or None where they do not."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**found, **expected}:
            where = f"{path}.{key}" if path else key
            if key not in found or key not in expected:
                return f"`{where}` is {found.get(key, 'missing')!r}"
            difference = first_difference(found[key], expected[key], where)
            if difference:
                return difference
        return None
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        parts = (first_difference(a, b, f"{path}[{i}]") for i, (a, b) in pairs)
        return next(filter(None, parts), None)
    if found != expected:
        return f"`{path}` is {found!r}, which can only be {expected!r} there"
    return None


def _block(block: Any, width: int) -> dict[str, Any]:
    if registry.blocks.name_of(block) != "block":
        return {"type": registry.blocks.name_of(block)}
    found = _part(block, width)
    found["mixer"] = _part(block.mixer, width)
    found["norm"] = _norm(block.norm, width)
    return found


def _norm(layer: Any, width: int) -> dict[str, Any] | None:
    return None if layer is None else _part(layer, width)


def _part(layer: Any, width: int) -> dict[str, Any]:
    kinds = ("blocks", "sequence_mixers", "channel_mixers", "norms", "experts", "routers")
    name = next(filter(None, (registry.table(kind).name_of(layer) for kind in kinds)), None)
    config = layer.get_config()
    own = (argument.name for argument in registry.own_parameters(type(layer)))
    found = {key: registry.plain(config[key]) for key in own if key in config}
    found = {key: value for key, value in found.items() if key not in _TRAINING}
    for key, default in _DEFAULTS.get(name or "", {}).items():
        if found[key] is None:
            found[key] = default(found, width)
    if name == "mixture_of_experts":
        _describe_mixture(found, width)
    if isinstance(found.get("axis"), list):  # Keras's norm makes a list of it when it is built.
        (found["axis"],) = found["axis"]
    return {"type": name, **found}


def _describe_mixture(found: dict[str, Any], width: int) -> None:
    """Puts the parts of a mixture in full in the place of what it was given."""
    for key, kinds in _PARTS.items():
        part = found[key]
        if isinstance(part, str) or (isinstance(part, dict) and "type" in part):
            found[key] = _part(registry.build(part, kinds), width)
    if found["experts"] is None:
        found["num_experts"] = found["num_experts"] or 8
    if found["router"].get("normalize", 0) is None:
        found["router"]["normalize"] = found["top_k"] > 1


def _attention(found: dict[str, Any], width: int) -> int:
    return width // found["num_heads"]


_DEFAULTS: dict[str, dict[str, Any]] = {
    "attention": {
        "num_kv_heads": lambda found, width: found["num_heads"],
        "head_dim": _attention,
        "output_bias": lambda found, width: found["use_bias"],
    },
    "gated_mlp": {"hidden_dim": lambda found, width: -(-int(8 / 3 * width) // 8) * 8},
    "mamba": {"dt_rank": lambda found, width: -(-width // 16)},
    "mamba2": {"head_dim": lambda found, width: min(64, found["expand"] * width)},
    "rg_lru": {"inner_dim": lambda found, width: width},
    "rwkv4_time_mixer": {"inner_dim": lambda found, width: width},
    "rwkv4_channel_mixer": {"hidden_dim": lambda found, width: -(-4 * width // 8) * 8},
    "gated_delta_net": {
        "num_key_heads": lambda found, width: found["num_heads"],
        "key_dim": _attention,
        "value_dim": _attention,
    },
}
"""What an argument of None stands for. A model whose layers do otherwise is not written, since its
weights would have other shapes."""
_DEFAULTS["sliding_attention"] = _DEFAULTS["attention"]
