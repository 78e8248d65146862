"""Kimi Delta Attention."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.decays import log_rates, step_biases
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.delta_rule import delta_rule


@registry.sequence_mixers.register("kimi_delta_attention")
class KimiDeltaAttention(SequenceMixer):
    """Gated DeltaNet with a decay for each channel of the keys.

    The finest control over what is forgotten among the delta rules, at somewhat more work.

    `S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T`, `o_t = S_t^T q_t / sqrt(K)`,
    `y = W_o (sigmoid(W_g x + c_g) * norm(o))`, where queries, keys and values pass a short
    convolution and SiLU, queries and keys have length 1, `b_t = sigmoid(w_b x_t)`, and
    `a_t = exp(-A softplus(W_a x_t + c))`; `W_a` and `W_g` have the rank of a head (Kimi Team 2025,
    arXiv 2510.26692, equations 1 and 9 to 11), and the output gate has a bias c_g.

    Args:
        num_heads: int >= 1. H, which divides the model width.
        conv_taps: int >= 1. The taps of the short convolution.
        epsilon: float > 0. Of the norm of each head.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.KimiDeltaAttention(num_heads=2)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self, num_heads: int = 4, conv_taps: int = 4, epsilon: float = 1e-5, **kwargs: Any
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads, conv_taps=conv_taps)
        self.num_heads = num_heads
        self.conv_taps = conv_taps
        heads.require_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        rank = self._head_dim = heads.head_width(self, width, self.num_heads)
        self.input_projection = heads.dense(self, 3 * width, "input_projection", width)
        self.short_convolution = ShortConvolution(
            self.conv_taps, dtype=self.dtype_policy, name="short_convolution"
        )
        self.short_convolution.build((*input_shape[:-1], 3 * width))
        self.beta = heads.dense(self, self.num_heads, "beta", width)
        self.decay_down = heads.dense(self, rank, "decay_down", width)
        self.decay_up = heads.dense(self, width, "decay_up", rank)
        self.log_rate = self.add_wide_weight((self.num_heads,), log_rates, "log_rate")
        self.step_bias = self.add_wide_weight((width,), step_biases, "step_bias")
        self.gate_down = heads.dense(self, rank, "gate_down", width)
        self.gate_up = heads.dense(self, width, "gate_up", rank, True)
        self.norm = heads.HeadNorm(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")
        self.norm.build((None, None, self.num_heads, self._head_dim))
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
        options = {"mask": mask, "segment_ids": segment_ids, "return_state": return_state}
        before = state or {"short": None, "matrix": None}
        inner = self.input_projection(x)
        inner, short = self.short_convolution.mix(inner, before["short"], **options)
        step = ops.softplus(wide(self.decay_up(self.decay_down(x))) + wide(self.step_bias))
        q, k, v, step = (
            wide(heads.split_heads(each, self.num_heads))
            for each in (*ops.split(ops.silu(inner), 3, axis=-1), step)
        )
        o, matrix = delta_rule(
            heads.unit(q) * self._head_dim**-0.5,
            heads.unit(k),
            v,
            ops.sigmoid(wide(self.beta(x))),
            -step * ops.exp(wide(self.log_rate))[:, None],
            initial_state=before["matrix"],
            mask=mask,
            segment_ids=segment_ids,
            return_state=True,
        )
        o = ops.cast(heads.join_heads(self.norm(o)), self.compute_dtype)
        gate = ops.sigmoid(self.gate_up(self.gate_down(x)))
        return self.output_projection(o * gate), {"short": short, "matrix": matrix}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self.num_heads, self._head_dim, self._head_dim)
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "matrix": ops.zeros(shape, heads.state_dtype(self)),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "conv_taps": self.conv_taps,
            "epsilon": self.epsilon,
        }
