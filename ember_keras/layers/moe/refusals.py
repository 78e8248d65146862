"""What a mixture of experts refuses, and how to mend it."""

from __future__ import annotations

from typing import Any

import keras

from ember_keras import registry


def require_experts(experts: Any) -> None:
    """Refuses a list of experts that is none, or has one layer twice."""
    if experts is None:
        return
    if not isinstance(experts, list | tuple) or not experts:
        raise ValueError(
            f"`MixtureOfExperts` received experts={experts!r}, expected a list of at least one "
            "name or configuration, or None for `num_experts` of `expert`."
        )
    layers = [id(each) for each in experts if isinstance(each, keras.layers.Layer)]
    if len(set(layers)) < len(layers):
        raise ValueError(
            "`MixtureOfExperts` received the same layer as two experts, expected a layer of its "
            "own for each. Give its configuration, or a copy."
        )


def require_parts_that_agree(
    router: Any, combiner: Any, whole: list[Any], capacity_factor: float | None
) -> None:
    """Refuses a router with a combiner, a capacity or experts that it has no use for.

    Args:
        router: the mixture's router, connected.
        combiner: its combiner.
        whole: the experts that are not stacked.
        capacity_factor: float or None.
    """
    by_token = router.slots is not None
    if not by_token and registry.combiners.name_of(combiner) != "weighted_sum":
        raise ValueError(
            f"`MixtureOfExperts` received a `{type(combiner).__name__}` and a "
            f"`{type(router).__name__}`, expected the combiner 'weighted_sum': tokens "
            "have no list of experts there. Choose another router, or leave `combiner` out."
        )
    if not by_token and capacity_factor is not None:
        raise ValueError(
            f"`MixtureOfExperts` received capacity_factor={capacity_factor} and a "
            f"`{type(router).__name__}`, expected None: each expert's work is fixed "
            "there. Leave it out."
        )
    if whole and registry.routers.name_of(router) == "soft":
        raise ValueError(
            f"`MixtureOfExperts` received the router 'soft' and a `{type(whole[0]).__name__}`, "
            "expected experts of 'mlp', 'gated_mlp' or 'dense': slots have no order in time."
        )


def require_same_width(expert: Any, x: Any, y: Any) -> None:
    """Refuses an expert whose output is not as wide as its input."""
    if y.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"`MixtureOfExperts` received a `{type(expert).__name__}` that gives {y.shape[-1]} "
            f"channels for {x.shape[-1]}, expected as many: experts are summed. Give it the width "
            "of its input, or add a layer that maps back to it."
        )
