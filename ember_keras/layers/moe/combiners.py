"""Combiners: one output out of those of a token's experts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import EmberLayer, wide
from ember_keras.layers.common.heads import require_at_least
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.moe.routers.base import softmax


class Combiner(EmberLayer):
    """A layer that makes one output of what K experts gave for a token.

    A subclass writes `call`. `connect` tells it K before it is built.

    Call arguments:
        y: float tensor `(N, K, D)`, the outputs of each token's experts, the likeliest first, and
            0 where there is none.
        weights: float tensor `(N, K)`, what the router gave them; 0 where there is none.
        chosen: bool tensor `(N, K)`, False where there is none.
        tokens: float tensor `(N, D)`.

    Output shape: `(N, D)`.
    """

    top_k = 2
    most: int | None = None
    """How many of a token's experts it looks at, from the likeliest on; None is all."""

    def connect(self, top_k: int) -> None:
        """Says how many experts a token has."""
        self.top_k = top_k

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config()}


@registry.combiners.register("weighted_sum")
class WeightedSum(Combiner):
    """The sum of the outputs, each times its weight: `y = sum_i g_i f_i(x)`.

    What nearly every mixture does (Shazeer et al. 2017, arXiv 1701.06538, equation 1).

    Args:
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every combiner, `y` `(N, K, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(combiner="weighted_sum")
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def call(self, y: Any, weights: Any = None, chosen: Any = None, tokens: Any = None) -> Any:
        return ops.sum(y * ops.cast(weights, y.dtype)[..., None], axis=1)


@registry.combiners.register("top_1")
class Top1(Combiner):
    """The likeliest expert's output alone, times its weight; the others are not run.

    As in the Switch transformer (Fedus et al. 2021, arXiv 2101.03961, equation 3); the router still
    chooses k.

    Args:
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every combiner, `y` `(N, K, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(combiner="top_1")
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    most = 1

    def call(self, y: Any, weights: Any = None, chosen: Any = None, tokens: Any = None) -> Any:
        return y[:, 0] * ops.cast(weights, y.dtype)[:, :1]


@registry.combiners.register("concatenation")
class Concatenation(Combiner):
    """The outputs side by side, each times its weight, and a linear map of them all.

    `y = [g_1 f_1(x); ...; g_k f_k(x)] W`, the likeliest first: what an expert says counts by its
    rank as well.

    Args:
        use_bias: bool. Whether the map has a bias.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every combiner, `y` `(N, K, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(combiner="concatenation")
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, use_bias: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        self.projection = Projection(
            width, use_bias=self.use_bias, dtype=self.dtype_policy, name="projection"
        )
        self.projection.build((None, self.top_k * width))
        super().build(input_shape)

    def call(self, y: Any, weights: Any = None, chosen: Any = None, tokens: Any = None) -> Any:
        y = y * ops.cast(weights, y.dtype)[..., None]
        return self.projection(ops.reshape(y, (-1, self.top_k * int(y.shape[2]))))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "use_bias": self.use_bias}


@registry.combiners.register("attention")
class AttentionCombiner(Combiner):
    """The sum of the outputs, weighted by attention of the token to them.

    `a = softmax(q(x) . k(f_i(x)) / sqrt(A) + log g_i)` over the token's experts, and
    `y = sum_i a_i f_i(x)`: with a flat attention it is the weighted sum, made to sum to 1. The
    scores are float32.

    Args:
        key_dim: int. A, the width of queries and keys.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every combiner, `y` `(N, K, D)` first.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(combiner={"type": "attention", "key_dim": 16})
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, key_dim: int = 32, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least(self, 1, key_dim=key_dim)
        self.key_dim = key_dim

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        options: dict[str, Any] = {"use_bias": False, "dtype": self.dtype_policy}
        self.query = keras.layers.Dense(self.key_dim, name="query", **options)
        self.key = keras.layers.Dense(self.key_dim, name="key", **options)
        self.query.build((None, width))
        self.key.build((None, self.top_k, width))
        super().build(input_shape)

    def call(self, y: Any, weights: Any = None, chosen: Any = None, tokens: Any = None) -> Any:
        query, key = wide(self.query(tokens)), wide(self.key(y))
        scores = ops.sum(query[:, None] * key, axis=-1) / self.key_dim**0.5
        scores = scores + ops.log(ops.maximum(wide(weights), 1e-20))
        scores = ops.where(chosen, scores, ops.full_like(scores, -1e30))
        attention = ops.cast(softmax(scores, axis=-1), y.dtype)
        attention = ops.where(chosen, attention, ops.zeros_like(attention))
        return ops.sum(y * attention[..., None], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "key_dim": self.key_dim}
