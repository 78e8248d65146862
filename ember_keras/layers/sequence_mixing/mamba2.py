"""Mamba-2."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.decays import log_rates, step_biases
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("mamba2")
class Mamba2(SequenceMixer):
    """The selective state space of Mamba with one decay a head, which makes it matrix products.

    Faster than Mamba at larger states; the usual choice among state-space layers for language.

    With `z, x, B, C, dt = W x_t`, a short convolution and SiLU over x, B and C, and
    `step = softplus(dt + b)`: `S_t = exp(-A step_t) S_{t-1} + B_t (step_t x_t)^T`,
    `o_t = S_t^T C_t + d x_t`, `y = W_o norm(o * silu(z))` (Dao and Gu 2024, arXiv 2405.21060,
    sections 6 and 7).

    Args:
        expand: int >= 1. The inner width in model widths.
        head_dim: int or None. V, the width of a head, which divides the inner width; 64 when None,
            or the inner width where that is less.
        state_dim: int >= 1. K, the width of B and C.
        num_groups: int >= 1. Groups of heads that share B and C, and each has a norm of its own
            (section 8.1); divides the heads.
        conv_taps: int >= 1. The taps of the short convolution.
        use_bias: bool. Whether the two linear maps have biases.
        conv_bias: bool. Whether the short convolution has one.
        epsilon: float > 0. Of the norm before the last map.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Mamba2(head_dim=8, state_dim=16)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        expand: int = 2,
        head_dim: int | None = None,
        state_dim: int = 64,
        num_groups: int = 1,
        conv_taps: int = 4,
        use_bias: bool = False,
        conv_bias: bool = True,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(
            self,
            1,
            expand=expand,
            head_dim=head_dim,
            state_dim=state_dim,
            num_groups=num_groups,
            conv_taps=conv_taps,
        )
        self.expand = expand
        self.head_dim = head_dim
        self.state_dim = state_dim
        self.num_groups = num_groups
        self.conv_taps = conv_taps
        self.use_bias = use_bias
        self.conv_bias = conv_bias
        heads.require_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._inner = self.expand * width
        self._head_dim = self.head_dim or min(64, self._inner)
        self._heads = heads.head_width(self, self._inner, self._head_dim, "head_dim or expand")
        heads.head_width(self, self._heads, self.num_groups, "num_groups")
        shared = self.num_groups * self.state_dim
        convolved = self._inner + 2 * shared
        total = self._inner + convolved + self._heads
        self.input_projection = heads.dense(self, total, "input_projection", width, self.use_bias)
        self.short_convolution = ShortConvolution(
            self.conv_taps, self.conv_bias, dtype=self.dtype_policy, name="short_convolution"
        )
        self.short_convolution.build((*input_shape[:-1], convolved))
        self.log_rate = self.add_wide_weight((self._heads,), log_rates, "log_rate")
        self.step_bias = self.add_wide_weight((self._heads,), step_biases, "step_bias")
        self.skip = self.add_weight((self._heads,), "ones", name="skip", autocast=False)
        self.norm = heads.HeadNorm(
            shared=False, epsilon=self.epsilon, dtype=self.dtype_policy, name="norm"
        )
        self.norm.build((None, None, self.num_groups, self._inner // self.num_groups))
        self.output_projection = heads.dense(
            self, width, "output_projection", self._inner, self.use_bias
        )
        self._sizes = [self._inner, self._inner + convolved]
        self._convolved = [self._inner, self._inner + shared]
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
        z, inner, dt = ops.split(self.input_projection(x), self._sizes, axis=-1)
        inner, short = self.short_convolution.mix(inner, before["short"], **options)
        u, b, c = ops.split(ops.silu(inner), self._convolved, axis=-1)
        step = ops.softplus(wide(dt) + wide(self.step_bias))
        u = wide(heads.split_heads(u, self._heads))
        o, matrix = gated_linear_attention(
            wide(heads.split_heads(c, self.num_groups)),
            wide(heads.split_heads(b, self.num_groups)),
            u,
            -step * ops.exp(wide(self.log_rate)),
            beta=step,
            d=wide(self.skip),
            initial_state=before["matrix"],
            mask=mask,
            segment_ids=segment_ids,
            return_state=True,
        )
        o = heads.join_heads(o)
        o, z = (heads.split_heads(each, self.num_groups) for each in (o, wide(z)))
        o = heads.join_heads(self.norm(o, gate=z))
        return self.output_projection(ops.cast(o, self.compute_dtype)), {
            "short": short,
            "matrix": matrix,
        }

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self._heads, self.state_dim, self._head_dim)
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "matrix": ops.zeros(shape, heads.state_dtype(self)),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "expand": self.expand,
            "head_dim": self.head_dim,
            "state_dim": self.state_dim,
            "num_groups": self.num_groups,
            "conv_taps": self.conv_taps,
            "use_bias": self.use_bias,
            "conv_bias": self.conv_bias,
            "epsilon": self.epsilon,
        }
