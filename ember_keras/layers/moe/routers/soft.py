"""A router without choices: every expert works on mixtures of all tokens."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.common.heads import require_at_least
from ember_keras.layers.moe.routers.base import Mixing, Router, Routing, softmax
from ember_keras.ops.engines.timeline import timeline

HIDDEN = -1e30
"""The logit of a token that is not there: finite, so that a row of padding alone has no NaN."""


@registry.routers.register("soft")
class SoftRouter(Router):
    """Experts take weighted means of all tokens of a sequence, in slots; nothing is dropped.

    With logits `L = X P`, slots are `softmax(L, over tokens)^T X`, and a token gets
    `softmax(L, over slots) Y` of what the experts made of them (Puigcerver et al. 2023, Soft MoE,
    arXiv 2308.00951, equations 1 to 3). The cost is that of the slots, however many tokens there
    are. A token's output depends on those after it: the mixture is not causal. The mixture's
    `top_k` has no part in it. Packed sequences have slots of their own, for as many sequences as
    there are positions: pack few.

    Args:
        slots_per_expert: int. The slots of each expert for a sequence, of any length.
        scale: float. The deviation of the logits at the start.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router={"type": "soft", "slots_per_expert": 2})
    print(layer.is_causal)  # False
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    balances_itself = True

    def __init__(self, slots_per_expert: int = 1, scale: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least(self, 1, slots_per_expert=slots_per_expert)
        require_at_least(self, 0, scale=scale)
        self.slots_per_expert = slots_per_expert
        self.scale = scale

    @property
    def is_causal(self) -> bool:
        return False

    @property
    def slots(self) -> int | None:
        return None

    def build(self, input_shape: Any) -> None:
        width, count = int(input_shape[-1]), self.num_experts * self.slots_per_expert
        self.kernel = self._add_kernel(width, self.scale, columns=count)
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        logits = self._logits(x, self.kernel)  # (B, T, E S)
        count, time = int(logits.shape[2]), int(x.shape[1])
        combine = softmax(logits, axis=-1)
        shape = (-1, time, self.num_experts, self.slots_per_expert)
        probabilities = ops.sum(ops.reshape(combine, shape), axis=-1)
        by_slot = ops.swapaxes(logits, 1, 2)  # (B, E S, T)
        run = timeline(x, mask, segment_ids).run
        if run is not None:
            place = ops.arange(time, dtype="int32")
            own = ops.equal(run[:, :, None], place)  # (B, T, sequences)
            here = ops.swapaxes(own, 1, 2)[:, :, None, :]
            by_slot = ops.where(here, by_slot[:, None], ops.full_like(by_slot[:, None], HIDDEN))
            by_slot = ops.reshape(by_slot, (-1, time * count, time))
            own = ops.cast(own, combine.dtype)
            combine = ops.reshape(own[..., None] * combine[:, :, None], (-1, time, time * count))
        if mask is not None:
            by_slot = ops.where(mask[:, None, :], by_slot, ops.full_like(by_slot, HIDDEN))
        mixing = Mixing(softmax(by_slot, axis=-1), combine, self.slots_per_expert)
        return Routing(mixing=mixing, probabilities=probabilities, logits=logits)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "slots_per_expert": self.slots_per_expert,
            "scale": self.scale,
        }
