"""Gated DeltaNet."""

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


@registry.sequence_mixers.register("gated_delta_net")
class GatedDeltaNet(SequenceMixer):
    """DeltaNet with a decay for each head: it overwrites one value, or forgets them all at once.

    The linear attention of several large hybrid models; a good first choice among them.

    `S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T`, `o_t = S_t^T q_t / sqrt(K)`,
    `y = W_o (silu(W_g x) * norm(o))`, where queries, keys and values pass a short convolution and
    SiLU, queries and keys have length 1, `b_t = sigmoid(w_b x_t)` and
    `a_t = exp(-A softplus(w_a x_t + c))` (Yang et al. 2024, arXiv 2412.06464, equation 10 and
    section 3.4).

    Args:
        num_heads: int >= 1. H, the heads of values, which divides the model width.
        num_key_heads: int or None. The heads of queries and keys, which divides H; H when None.
        key_dim: int or None. K, the width of a head's queries and keys; D / H when None.
        value_dim: int or None. V, the width of a head's values; D / H when None.
        conv_taps: int >= 1. The taps of the short convolution.
        epsilon: float > 0. Of the norm of each head.
        negative_eigenvalues: bool. `b_t` reaches to 2, so that a value can be turned round (Grazzi
            et al. 2024, arXiv 2411.12537), which tracking a state needs.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.GatedDeltaNet(num_heads=2)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    def __init__(
        self,
        num_heads: int = 4,
        num_key_heads: int | None = None,
        key_dim: int | None = None,
        value_dim: int | None = None,
        conv_taps: int = 4,
        epsilon: float = 1e-5,
        negative_eigenvalues: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(
            self,
            1,
            num_heads=num_heads,
            num_key_heads=num_key_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            conv_taps=conv_taps,
        )
        if num_key_heads is not None and num_heads % num_key_heads:
            raise ValueError(
                f"`GatedDeltaNet` received num_heads={num_heads} and num_key_heads="
                f"{num_key_heads}, expected a second number that divides the first."
            )
        self.num_heads = num_heads
        self.num_key_heads = num_key_heads
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.conv_taps = conv_taps
        heads.require_positive(self, epsilon=epsilon)
        self.epsilon = epsilon
        self.negative_eigenvalues = negative_eigenvalues

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._key_heads = self.num_key_heads or self.num_heads
        self._key_dim = self.key_dim or heads.head_width(self, width, self.num_heads)
        self._value_dim = self.value_dim or heads.head_width(self, width, self.num_heads)
        keys, values = self._key_heads * self._key_dim, self.num_heads * self._value_dim
        self.input_projection = heads.dense(self, 2 * keys + values, "input_projection", width)
        self.short_convolution = ShortConvolution(
            self.conv_taps, dtype=self.dtype_policy, name="short_convolution"
        )
        self.short_convolution.build((*input_shape[:-1], 2 * keys + values))
        self.beta = heads.dense(self, self.num_heads, "beta", width)
        self.decay = heads.dense(self, self.num_heads, "decay", width)
        self.log_rate = self.add_wide_weight((self.num_heads,), log_rates, "log_rate")
        self.step_bias = self.add_wide_weight((self.num_heads,), step_biases, "step_bias")
        self.gate = heads.dense(self, values, "gate", width)
        self.norm = heads.HeadNorm(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")
        self.norm.build((None, None, self.num_heads, self._value_dim))
        self.output_projection = heads.dense(self, width, "output_projection", values)
        self._splits = [keys, 2 * keys]
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
        q, k, v = ops.split(ops.silu(inner), self._splits, axis=-1)
        q, k = (heads.unit(heads.split_heads(each, self._key_heads)) for each in (q, k))
        repeat = self.num_heads // self._key_heads
        if repeat > 1:
            q, k = ops.repeat(q, repeat, axis=2), ops.repeat(k, repeat, axis=2)
        step = ops.softplus(wide(self.decay(x)) + wide(self.step_bias))
        beta = ops.sigmoid(wide(self.beta(x)))
        o, matrix = delta_rule(
            q * self._key_dim**-0.5,
            k,
            wide(heads.split_heads(v, self.num_heads)),
            2.0 * beta if self.negative_eigenvalues else beta,
            -step * ops.exp(wide(self.log_rate)),
            initial_state=before["matrix"],
            mask=mask,
            segment_ids=segment_ids,
            return_state=True,
        )
        o = ops.cast(heads.join_heads(self.norm(o)), self.compute_dtype)
        return self.output_projection(o * ops.silu(self.gate(x))), {
            "short": short,
            "matrix": matrix,
        }

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self.num_heads, self._key_dim, self._value_dim)
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "matrix": ops.zeros(shape, heads.state_dtype(self)),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_key_heads": self.num_key_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "conv_taps": self.conv_taps,
            "epsilon": self.epsilon,
            "negative_eigenvalues": self.negative_eigenvalues,
        }
