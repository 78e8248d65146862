"""Multi-scale retention."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.rotary import apply_rotary, token_positions, tokens_after
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("retention")
class Retention(SequenceMixer):
    """Linear attention with rotary positions and a fixed decay for each head.

    The decays span memories from 32 positions up, and need no learning; simple and steady, where
    what matters is mostly recent.

    `S_t = gamma_h S_{t-1} + k_t v_t^T`, `o_t = S_t^T q_t / sqrt(K)` with queries and keys turned by
    their position, and `y = W_o (silu(W_g x) * GroupNorm(o))`, a group for each head;
    `gamma_h = 1 - 2^(-5-h)` (Sun et al. 2023, RetNet, arXiv 2307.08621, equations 5 to 8).

    Args:
        num_heads: int >= 1. H, which divides the model width.
        rotary_base: float > 1. The slowest pair of channels turns once in about `2 pi rotary_base`
            positions.
        expand_values: float > 0. The width of all values together, in model widths; the paper's
            models have 2.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Retention(num_heads=2)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        num_heads: int = 4,
        rotary_base: float = 10000.0,
        expand_values: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads)
        if rotary_base <= 1:
            raise ValueError(
                f"`Retention` received rotary_base={rotary_base}, expected more than 1."
            )
        if expand_values <= 0:
            raise ValueError(
                f"`Retention` received expand_values={expand_values}, expected more than 0."
            )
        self.num_heads = num_heads
        self.rotary_base = rotary_base
        self.expand_values = expand_values

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        values = int(width * self.expand_values)
        self._key_dim = heads.head_width(self, width, self.num_heads)
        self._value_dim = heads.head_width(self, values, self.num_heads, "expand_values")
        self.query = heads.dense(self, width, "query", width)
        self.key = heads.dense(self, width, "key", width)
        self.value = heads.dense(self, values, "value", width)
        self.gate = heads.dense(self, values, "gate", width)
        self.norm = heads.HeadNorm("layer", shared=False, dtype=self.dtype_policy, name="norm")
        self.norm.build((None, None, self.num_heads, self._value_dim))
        self.output_projection = heads.dense(self, width, "output_projection", values)
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
            wide(heads.split_heads(layer(x), self.num_heads))
            for layer in (self.query, self.key, self.value)
        )
        seen = None if state is None else state["length"]
        positions = token_positions(x, seen, mask, segment_ids)
        q = apply_rotary(q, positions, self.rotary_base) * self._key_dim**-0.5
        k = apply_rotary(k, positions, self.rotary_base)
        decay = np.log1p(-(2.0 ** (-5.0 - np.arange(self.num_heads))))
        o, matrix = gated_linear_attention(
            q,
            k,
            v,
            ops.broadcast_to(ops.cast(decay, v.dtype), (*ops.shape(v)[:2], self.num_heads)),
            initial_state=None if state is None else state["matrix"],
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        o = ops.cast(heads.join_heads(self.norm(o)), self.compute_dtype)
        length = tokens_after(positions, seen, mask)
        return self.output_projection(o * ops.silu(self.gate(x))), {
            "matrix": matrix,
            "length": length,
        }

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self.num_heads, self._key_dim, self._value_dim)
        return {
            "matrix": ops.zeros(shape, heads.state_dtype(self)),
            "length": ops.zeros((batch_size,), "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "rotary_base": self.rotary_base,
            "expand_values": self.expand_values,
        }
