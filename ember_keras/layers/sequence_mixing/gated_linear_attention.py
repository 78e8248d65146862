"""Gated linear attention."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("gated_linear_attention")
class GatedLinearAttention(SequenceMixer):
    """Linear attention that forgets, each channel of the keys as fast as the input says.

    A strong plain choice for language at a fixed cost a position.

    `S_t = diag(a_t) S_{t-1} + k_t v_t^T`, `o_t = S_t^T q_t / sqrt(K)`, with the decay
    `a_t = sigmoid(x_t W1 W2 + b)^(1/tau)`, and `y = W_o (silu(W_g x) * norm(o))`, a norm for each
    head (Yang et al. 2023, arXiv 2312.06635, section 4.4, where the norm is a layer norm; here it
    divides by the root mean square and has no bias).

    Args:
        num_heads: int >= 1. H, which divides the model width.
        expand_keys: float > 0. The width of all keys together, in model widths.
        low_rank_dim: int >= 1. The width between W1 and W2.
        gate_temperature: float > 0. tau; a large one makes long memories.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.GatedLinearAttention(num_heads=2)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        num_heads: int = 4,
        expand_keys: float = 0.5,
        low_rank_dim: int = 16,
        gate_temperature: float = 16.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads, low_rank_dim=low_rank_dim)
        for name, value in (("expand_keys", expand_keys), ("gate_temperature", gate_temperature)):
            if value <= 0:
                raise ValueError(
                    f"`GatedLinearAttention` received {name}={value}, expected more than 0."
                )
        self.num_heads = num_heads
        self.expand_keys = expand_keys
        self.low_rank_dim = low_rank_dim
        self.gate_temperature = gate_temperature

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        keys = int(width * self.expand_keys)
        self._key_dim = heads.head_width(self, keys, self.num_heads, "num_heads or expand_keys")
        self._value_dim = heads.head_width(self, width, self.num_heads)
        self.query = heads.dense(self, keys, "query", width)
        self.key = heads.dense(self, keys, "key", width)
        self.value = heads.dense(self, width, "value", width)
        self.decay_down = heads.dense(self, self.low_rank_dim, "decay_down", width)
        self.decay_up = heads.dense(self, keys, "decay_up", self.low_rank_dim, True)
        self.gate = heads.dense(self, width, "gate", width)
        self.norm = heads.HeadNorm(dtype=self.dtype_policy, name="norm")
        self.norm.build((None, None, self.num_heads, self._value_dim))
        self.output_projection = heads.dense(self, width, "output_projection", width)
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
        decay = wide(self.decay_up(self.decay_down(x)))
        log_decay = ops.log_sigmoid(decay) / self.gate_temperature
        q, k, v, log_decay = (
            wide(heads.split_heads(each, self.num_heads))
            for each in (self.query(x), self.key(x), self.value(x), log_decay)
        )
        o, state = gated_linear_attention(
            q * self._key_dim**-0.5,
            k,
            v,
            log_decay,
            initial_state=state,
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        o = ops.cast(heads.join_heads(self.norm(o)), self.compute_dtype)
        return self.output_projection(o * ops.silu(self.gate(x))), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self.num_heads, self._key_dim, self._value_dim)
        return ops.zeros(shape, heads.state_dtype(self))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "expand_keys": self.expand_keys,
            "low_rank_dim": self.low_rank_dim,
            "gate_temperature": self.gate_temperature,
        }
