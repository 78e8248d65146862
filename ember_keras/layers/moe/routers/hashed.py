"""A router that learns nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.moe.routers.base import Router, Routing, all_chosen

BITS = 16


@registry.routers.register("hash")
class HashRouter(Router):
    """Each token goes to experts that a fixed hash of its vector names; nothing is learned.

    The hash layers of Roller et al. (2021, arXiv 2106.04426) hash the token itself; a mixture sees
    its vector, so the hash here is on which side of 16 fixed random planes it lies (Charikar 2002,
    doi 10.1145/509907.509965). Equal vectors always go to the same experts, and near ones often.
    The k experts are neighbours in number, and each weighs 1/k.

    Args:
        seed: int. The seed of the planes.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every router, `x` `(B, T, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(router="hash", top_k=1)
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    balances_itself = True

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        if seed < 0:
            raise ValueError(f"`HashRouter` received seed={seed}, expected at least 0.")

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        rng = np.random.default_rng([self.seed, width])
        self._planes = rng.normal(size=(width, BITS)).astype("float32")
        # Each bit stands for a number of its own, so that experts are used evenly.
        self._numbers = rng.integers(1, 2**20, size=BITS).astype("int32")
        super().build(input_shape)

    def route(self, x: Any, mask: Any, segment_ids: Any, training: bool | None) -> Routing:
        x = wide(ops.stop_gradient(x))
        sides = ops.matmul(x, ops.cast(ops.convert_to_tensor(self._planes), x.dtype)) > 0
        number = ops.sum(ops.cast(sides, "int32") * ops.convert_to_tensor(self._numbers), axis=-1)
        places = ops.arange(self.top_k, dtype="int32")
        experts = ops.cast((number[..., None] + places) % self.num_experts, "int32")
        weights = ops.full_like(ops.cast(experts, x.dtype), 1.0 / self.top_k)
        return Routing(experts, weights, all_chosen(experts))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
