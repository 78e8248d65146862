"""Hyena operators as experts, of which a router chooses a few a position."""

from __future__ import annotations

from typing import Annotated, Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import wide
from ember_keras.layers.sequence_mixing.hyena import Hyena


@registry.sequence_mixers.register("hyena_experts")
class HyenaExperts(Hyena):
    """Narrow Hyena operators as experts, of which a router chooses a few at each position.

    As much mixing along time as one wide `Hyena`, of which each position reads a part that it
    chooses. Every expert sees every position, as a convolution must; only reading is sparse.

    With `z_e` the result of expert e, a `Hyena` operator of width `expert_dim` (Poli et al. 2023,
    arXiv 2302.10866, definition 3.1), and `r = W_r x`,
    `y = W sum_{e in top(r)} softmax_{e in top(r)}(r_e) z_e` (Poli et al. 2024, MAD, arXiv
    2403.17844, section 2.2 and appendix; the gate is that of Shazeer et al. 2017,
    arXiv 1701.06538, equations 3 to 5). The MAD-Lab package gives an expert that was not chosen the
    score 0 in the softmax, and so some weight; here, as in the equation, it has none.

    Args:
        num_experts: int >= 1. E.
        active_experts: int from 1 to `num_experts`. How many experts a position reads.
        expert_dim: int or None. The width of an expert; D / E, at least 1, when None.
        order: int >= 2. The number of gates, as in `Hyena`.
        short_taps: int >= 1. The taps of the short convolution over the projections.
        filter: a name, configuration or layer of `registry.filters`.
        use_bias: bool. Whether the two linear maps have biases.
        causal: bool. False looks ahead too; it then has no state and no `step`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.HyenaExperts(num_experts=4, active_experts=1)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    def __init__(
        self,
        num_experts: int = 8,
        active_experts: int = 2,
        expert_dim: int | None = None,
        order: int = 2,
        short_taps: int = 3,
        filter: Annotated[Any, Component("filters")] = "implicit",
        use_bias: bool = True,
        causal: bool = True,
        **kwargs: Any,
    ):
        super().__init__(order, short_taps, filter, use_bias, causal, **kwargs)
        if num_experts < 1 or not 1 <= active_experts <= num_experts:
            raise ValueError(
                f"`HyenaExperts` received num_experts={num_experts} and active_experts="
                f"{active_experts}, expected at least one expert, of which 1 to all are active."
            )
        if expert_dim is not None and expert_dim < 1:
            raise ValueError(
                f"`HyenaExperts` received expert_dim={expert_dim}, expected at least 1, or None."
            )
        self.num_experts = num_experts
        self.active_experts = active_experts
        self.expert_dim = expert_dim

    def _widths(self, width: int) -> tuple[int, int]:
        outer = self.expert_dim or max(1, width // self.num_experts)
        return self.num_experts * outer, outer

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.router = self.add_weight(
            (input_shape[-1], self.num_experts),
            keras.initializers.GlorotUniform(),
            name="router",
            autocast=False,
        )

    def _joined(self, z: Any, x: Any) -> Any:
        # The choice is made in float32: rounded scores would choose other experts.
        scores = ops.matmul(wide(x), wide(self.router))
        if self.active_experts < self.num_experts:
            chosen = _greatest(scores, self.active_experts)
            scores = ops.where(chosen, scores, ops.full_like(scores, -1e30))
        weights = ops.cast(ops.softmax(scores, axis=-1), z.dtype)
        shape = (*ops.shape(z)[:-1], self.num_experts, z.shape[-1] // self.num_experts)
        return ops.sum(ops.expand_dims(weights, -1) * ops.reshape(z, shape), axis=-2)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "active_experts": self.active_experts,
            "expert_dim": self.expert_dim,
        }


def _greatest(scores: Any, count: int) -> Any:
    """True at the `count` greatest along the last axis, and of equal ones at the first."""
    least = ops.top_k(scores, count)[0][..., -1:]
    above, tied = scores > least, scores == least
    room = count - ops.sum(ops.cast(above, "int32"), axis=-1, keepdims=True)
    place = ops.cumsum(ops.cast(tied, "int32"), axis=-1)
    return ops.logical_or(above, ops.logical_and(tied, place <= room))
