"""A router where a token goes to as many experts as it takes."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.common.heads import require_at_least
from ember_keras.layers.moe.routers.base import Router, Routing, at, softmax, top_k


@registry.routers.register("dynamic")
class DynamicRouter(Router):
    """Each token goes to the fewest experts whose probabilities reach a mass.

    An easy token goes to one expert, an uncertain one to several: the first t of the experts in
    the order of `g = softmax(x W)` with `g_1 + ... + g_t >= mass` (Huang et al. 2024,
    arXiv 2403.07652, equations 4 and 5). The weights are `g`, not made to sum to 1. The mixture's
    `top_k` has no part in it.

    Args:
        mass: float in (0, 1]. The probability that the experts of a token reach together.
        max_experts: int or None. The most experts of a token, which bounds memory; None is all.
        scale: float. The deviation of the logits at the start.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router={"type": "dynamic", "mass": 0.5, "max_experts": 4})
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self, mass: float = 0.4, max_experts: int | None = None, scale: float = 0.1, **kwargs: Any
    ):
        super().__init__(**kwargs)
        require_at_least(self, 0, scale=scale)
        require_at_least(self, 1, max_experts=max_experts)
        if not 0 < mass <= 1:
            raise ValueError(
                f"`DynamicRouter` received mass={mass}, expected a probability in (0, 1]."
            )
        self.mass = mass
        self.max_experts = max_experts
        self.scale = scale

    @property
    def slots(self) -> int | None:
        return min(self.num_experts, self.max_experts or self.num_experts)

    def build(self, input_shape: Any) -> None:
        self.kernel = self._add_kernel(int(input_shape[-1]), self.scale)
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        logits = self._logits(x, self.kernel)
        probabilities = softmax(logits, axis=-1)
        experts = top_k(logits, self.slots or 1)
        weights = at(probabilities, experts)
        known = ops.stop_gradient(weights)
        # Not "below the mass": a number that is none reaches nothing, and is not hidden by zeros.
        chosen = ops.logical_not(ops.cumsum(known, axis=-1) - known >= self.mass)
        return Routing(experts, weights, chosen, probabilities=probabilities, logits=logits)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mass": self.mass,
            "max_experts": self.max_experts,
            "scale": self.scale,
        }
