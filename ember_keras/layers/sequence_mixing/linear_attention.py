"""Linear attention with a feature map."""

from __future__ import annotations

from typing import Annotated, Any

from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("linear_attention")
class LinearAttention(SequenceMixer):
    """Attention whose exponential is a product of features, so that the past is one matrix a head.

    It costs the same at every position, however long the sequence; it recalls less than softmax
    attention, and forgets nothing on purpose. The feature map decides how sharp it can be.

    `o_t = S_t^T phi(q_t) / (z_t . phi(q_t))` with `S_t = S_{t-1} + phi(k_t) v_t^T` and
    `z_t = z_{t-1} + phi(k_t)` (Katharopoulos et al. 2020, arXiv 2006.16236, equations 16 to 20).

    Args:
        num_heads: int >= 1. H, which divides the model width.
        feature_dim: int or None. K, the width of a head's queries and keys before the feature map;
            D / H when None.
        feature_map: a name, configuration or layer of `registry.feature_maps`: "elu", "relu",
            "taylor" (Based; give it a small `feature_dim`) or "hedgehog".
        normalize: bool. Whether the output is divided by `z_t . phi(q_t)`.
        use_bias: bool. Whether the four maps have biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.LinearAttention(num_heads=2, feature_dim=4, feature_map="taylor")
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    def __init__(
        self,
        num_heads: int = 4,
        feature_dim: int | None = None,
        feature_map: Annotated[Any, Component("feature_maps")] = "elu",
        normalize: bool = True,
        use_bias: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads, feature_dim=feature_dim)
        self.num_heads = num_heads
        self.feature_dim = feature_dim
        self.normalize = normalize
        self.use_bias = use_bias
        self.feature_map = registry.build_part(
            feature_map, ("feature_maps",), self.dtype_policy, "feature_map"
        )

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._value_dim = heads.head_width(self, width, self.num_heads)
        self._key_dim = self.feature_dim or self._value_dim
        keys = self.num_heads * self._key_dim
        self.query = heads.dense(self, keys, "query", width, self.use_bias)
        self.key = heads.dense(self, keys, "key", width, self.use_bias)
        self.value = heads.dense(self, width, "value", width, self.use_bias)
        self.feature_map.build((None, None, self.num_heads, self._key_dim))
        self.output_projection = heads.dense(self, width, "output_projection", width, self.use_bias)
        super().build(input_shape)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        q, k, v = (
            heads.split_heads(layer(x), self.num_heads)
            for layer in (self.query, self.key, self.value)
        )
        v = wide(v)
        if self.normalize:
            # A channel of ones sums the weights beside the weighted values.
            v = ops.concatenate([v, ops.ones_like(v[..., :1])], axis=-1)
        o, state = gated_linear_attention(
            self.feature_map(q),
            self.feature_map(k),
            v,
            initial_state=state,
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        if self.normalize:
            # A sum of weights may be small beside 1; its square must not be 0.
            o = o[..., :-1] / ops.maximum(o[..., -1:], 1e-18)
        o = ops.cast(heads.join_heads(o), self.compute_dtype)
        return self.output_projection(o), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        features = self.feature_map.features(self._key_dim)
        width = self._value_dim + (1 if self.normalize else 0)
        return ops.zeros((batch_size, self.num_heads, features, width), heads.state_dtype(self))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feature_dim": self.feature_dim,
            "feature_map": registry.part_config(self.feature_map, ("feature_maps",)),
            "normalize": self.normalize,
            "use_bias": self.use_bias,
        }
