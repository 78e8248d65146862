"""A router where experts choose their tokens."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.common.heads import require_at_least
from ember_keras.layers.moe.routers.base import Router, Routing, softmax
from ember_keras.ops.engines.timeline import timeline


@registry.routers.register("expert_choice")
class ExpertChoiceRouter(Router):
    """Each expert takes the tokens of a sequence that want it most, always as many.

    `g = softmax(x W)`, and expert e takes the `(n k + e) // E` largest of `g[:, e]` among the n
    real tokens of a sequence: `n k` places in all (Zhou et al. 2022, arXiv 2202.09368, section 3.2,
    with a capacity factor of k). The load is even without a loss, and a token has as many experts
    as want it, or none. What a token gets depends on those after it: the mixture is not causal.

    Args:
        scale: float. The deviation of the logits at the start.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router="expert_choice")
    print(layer.is_causal)  # False
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    balances_itself = True

    def __init__(self, scale: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least(self, 0, scale=scale)
        self.scale = scale

    @property
    def is_causal(self) -> bool:
        return False

    @property
    def slots(self) -> int | None:
        return None

    def build(self, input_shape: Any) -> None:
        self.kernel = self._add_kernel(int(input_shape[-1]), self.scale)
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        logits = self._logits(x, self.kernel)
        probabilities = softmax(logits, axis=-1)
        known = ops.swapaxes(ops.stop_gradient(ops.log_softmax(logits, axis=-1)), 1, 2)
        run = timeline(x, mask, segment_ids).run
        if run is None:
            taken = self._largest(known, mask)
        else:
            taken = self._largest_of_runs(known, mask, run)
        taken = ops.swapaxes(taken, 1, 2)
        # What is no number stays one: zeros would hide it.
        shown = ops.logical_or(taken, ops.isnan(probabilities))
        gates = ops.where(shown, probabilities, ops.zeros_like(probabilities))
        return Routing(gates=gates, taken=taken, probabilities=probabilities, logits=logits)

    def _places(self, size: Any) -> Any:
        """How many tokens each expert takes of sequences of the lengths `(B, ...)`."""
        number = ops.arange(self.num_experts, dtype="int32")
        number = ops.reshape(number, (1, -1, *(1,) * (len(size.shape) - 1)))
        return (size[:, None] * self.top_k + number) // self.num_experts

    def _largest(self, scores: Any, mask: Any) -> Any:
        """Whether each expert takes each token: `(B, E, T)`. Of equal ones it takes the earlier."""
        time = int(scores.shape[2])
        if mask is None:
            size = ops.full_like(scores[:, 0, 0], time, dtype="int32")
        else:
            scores = ops.where(mask[:, None, :], scores, ops.full_like(scores, -float("inf")))
            size = ops.cast(ops.sum(ops.cast(mask, "int32"), axis=1), "int32")
        places = ops.minimum(self._places(size), size[:, None])[..., None]  # (B, E, 1)
        least = ops.take_along_axis(
            ops.sort(scores, axis=2), ops.minimum(time - places, time - 1), axis=2
        )
        above, equal = scores > least, ops.equal(scores, least)
        room = places - ops.sum(ops.cast(above, "int32"), axis=2, keepdims=True)
        among = ops.cumsum(ops.cast(equal, "int32"), axis=2) <= room
        taken = ops.logical_or(above, ops.logical_and(equal, among))
        taken = ops.logical_and(taken, places > 0)
        return taken if mask is None else ops.logical_and(taken, mask[:, None, :])

    def _largest_of_runs(self, scores: Any, mask: Any, run: Any) -> Any:
        """The same within each packed sequence: every token is compared with every other."""
        if mask is not None:
            run = ops.where(mask, run, ops.full_like(run, -1))
        same = ops.equal(run[:, :, None], run[:, None, :])
        places = self._places(ops.cast(ops.sum(ops.cast(same, "int32"), axis=2), "int32"))
        place = ops.arange(int(scores.shape[2]), dtype="int32")
        earlier = place[None, :] < place[:, None]

        def of_expert(scores: Any, places: Any) -> Any:
            ahead = scores[:, None, :] > scores[:, :, None]
            equal = ops.equal(scores[:, None, :], scores[:, :, None])
            ahead = ops.logical_or(ahead, ops.logical_and(equal, earlier))
            ahead = ops.cast(ops.logical_and(ahead, same), "int32")
            return ops.cast(ops.sum(ahead, axis=2), "int32") < places

        taken = [of_expert(scores[:, e], places[:, e]) for e in range(self.num_experts)]
        found = ops.stack(taken, axis=1)
        return found if mask is None else ops.logical_and(found, mask[:, None, :])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}
