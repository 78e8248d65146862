"""HGRN2."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("hgrn2")
class HGRN2(SequenceMixer):
    """A gated linear recurrence whose state is widened to a matrix: what is forgotten makes room.

    The key is what the forget gate lets go, so there is no key to learn; with the forget gates of
    upper layers bounded from below, they remember longer.

    `S_t = diag(f_t) S_{t-1} + (1 - f_t) i_t^T`, `o_t = S_t^T g_t`, `y = W_o norm(o)`, with
    `f_t = bound + (1 - bound) sigmoid(W_f x_t)`, the output gate `g_t = silu(W_g x_t)` and the
    input `i_t = W_i x_t` (Qin et al. 2024, arXiv 2404.07904, equations 5 to 7). The norm divides by
    the root mean square of all heads together, as in the authors' models. The paper learns the
    bounds of all layers together, rising with depth; here each layer has its own, as an argument.

    Args:
        num_heads: int >= 1. H, which divides the model width.
        state_dim: int or None. K, the width of a head's forget gate; D / H when None.
        lower_bound: float in [0, 1). The least of the forget gates; raise it with the depth.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.HGRN2(num_heads=2, lower_bound=0.5)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        num_heads: int = 4,
        state_dim: int | None = None,
        lower_bound: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads, state_dim=state_dim)
        if not 0 <= lower_bound < 1:
            raise ValueError(f"`HGRN2` received lower_bound={lower_bound}, expected in [0, 1).")
        self.num_heads = num_heads
        self.state_dim = state_dim
        self.lower_bound = lower_bound

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._value_dim = heads.head_width(self, width, self.num_heads)
        self._key_dim = self.state_dim or self._value_dim
        keys = self.num_heads * self._key_dim
        self.forget_gate = heads.dense(self, keys, "forget_gate", width)
        self.output_gate = heads.dense(self, keys, "output_gate", width)
        self.input_projection = heads.dense(self, width, "input_projection", width)
        self.norm = heads.HeadNorm(dtype=self.dtype_policy, name="norm")
        self.norm.build((None, None, 1, width))
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
        forget = wide(self.forget_gate(x))
        let_go = (1.0 - self.lower_bound) * ops.sigmoid(-forget)
        log_decay = ops.log1p(-let_go) if self.lower_bound else ops.log_sigmoid(forget)
        gate, value = ops.silu(wide(self.output_gate(x))), wide(self.input_projection(x))
        q, k, v, log_decay = (
            heads.split_heads(each, self.num_heads) for each in (gate, let_go, value, log_decay)
        )
        o, state = gated_linear_attention(
            q,
            k,
            v,
            log_decay,
            initial_state=state,
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        o = self.norm(heads.split_heads(heads.join_heads(o), 1))  # Over the whole width.
        return self.output_projection(ops.cast(heads.join_heads(o), self.compute_dtype)), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self.num_heads, self._key_dim, self._value_dim)
        return ops.zeros(shape, heads.state_dtype(self))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "state_dim": self.state_dim,
            "lower_bound": self.lower_bound,
        }
