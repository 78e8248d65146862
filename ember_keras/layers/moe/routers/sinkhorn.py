"""A router that shares tokens out evenly in training."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.common.heads import require_at_least
from ember_keras.layers.moe.routers.base import Router, Routing, all_chosen, at, softmax, top_k


@registry.routers.register("sinkhorn")
class SinkhornRouter(Router):
    """In training, the experts of a batch's tokens are shared out evenly, by Sinkhorn's iteration.

    `exp(x W)` is scaled by rows and columns in turn until each token has the mass 1 and each expert
    the same mass; a token goes to the k largest of that, with the weights `sigmoid(x W)` (Clark et
    al. 2022, S-BASE, arXiv 2202.01169, section 3.2 and appendix B). In prediction it goes to the k
    largest of `x W`: an output depends on no other token then.

    Args:
        iterations: int. How often rows and columns are scaled.
        scale: float. The deviation of the logits at the start.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router="sinkhorn", top_k=1)
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    balances_itself = True

    def __init__(self, iterations: int = 8, scale: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least(self, 1, iterations=iterations)
        require_at_least(self, 0, scale=scale)
        self.iterations = iterations
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        self.kernel = self._add_kernel(int(input_shape[-1]), self.scale)
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        logits = self._logits(x, self.kernel)
        scores = self._shared_out(ops.stop_gradient(logits), mask) if training else logits
        experts = top_k(scores, self.top_k)
        weights = at(ops.sigmoid(logits), experts)
        return Routing(
            experts,
            weights,
            all_chosen(experts),
            probabilities=softmax(logits, axis=-1),
            logits=logits,
        )

    def _shared_out(self, logits: Any, mask: Any) -> Any:
        """The logs of the scaled masses `(B, T, E)`; padding takes no part."""
        # An expert's tokens lie side by side in memory of their own: experts of equal logits are
        # summed in one order, and stay equal.
        scores = ops.reshape(ops.transpose(logits, (2, 0, 1)), (self.num_experts, -1))
        scores = ops.take(scores, ops.arange(self.num_experts, dtype="int32"), axis=0)
        real = 0.0
        if mask is not None:
            real = ops.reshape(ops.cast(ops.where(mask, 0.0, -1e30), logits.dtype), (1, -1))
        for _ in range(self.iterations):
            scores = scores - ops.logsumexp(scores + real, axis=1, keepdims=True)
            scores = scores - ops.logsumexp(scores, axis=0, keepdims=True)
        scores = ops.reshape(scores, (self.num_experts, *ops.shape(logits)[:2]))
        return ops.transpose(scores, (1, 2, 0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "iterations": self.iterations, "scale": self.scale}
