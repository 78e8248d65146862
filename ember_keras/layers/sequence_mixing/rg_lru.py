"""Griffin's recurrent block around the real-gated linear recurrent unit."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.linear_recurrence import linear_recurrence


@registry.sequence_mixers.register("rg_lru")
class RGLRU(SequenceMixer):
    """Griffin's recurrent block: a gated diagonal recurrence behind a short convolution.

    A light mixer for language with one number of state a channel; Griffin sets one layer of local
    attention (`sliding_attention`) to two of these.

    `x = conv(W_x u)`; gates `r_t = sigmoid(W_r x_t + b_r)` and `i_t = sigmoid(W_i x_t + b_i)`, a
    block of channels at a time; `log a_t = -c r_t softplus(Lambda)`,
    `h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t)`; the output is `W_o (gelu(W_y u) h)`
    (De et al. 2024, arXiv 2402.19427, equations 1 to 6). The first position of a sequence is
    treated as any other, as in the paper; the published RecurrentGemma gives it the factor 1 in
    place of `sqrt(1 - a^2)`, and `scale_first=False` does so too.

    Args:
        inner_dim: int or None. The width of the recurrence; D when None.
        num_heads: int >= 1. The blocks of channels that gates see, which divide the inner width.
        short_taps: int >= 1. The taps of the short convolution.
        exponent: float > 0. c: a gate of 1 decays as fast as c gates of 1 / c.
        min_radius: float in (0, 1). The fastest decay at the start, where the gate `r` is 1.
        max_radius: float in (min_radius, 1). The slowest.
        scale_first: bool. Whether the first position of a sequence is scaled like the others.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RGLRU(num_heads=4)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        inner_dim: int | None = None,
        num_heads: int = 1,
        short_taps: int = 4,
        exponent: float = 8.0,
        min_radius: float = 0.9,
        max_radius: float = 0.999,
        scale_first: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if inner_dim is not None and inner_dim < 1:
            raise ValueError(
                f"`RGLRU` received inner_dim={inner_dim}, expected at least 1, or None."
            )
        if num_heads < 1:
            raise ValueError(f"`RGLRU` received num_heads={num_heads}, expected at least 1.")
        if exponent <= 0:
            raise ValueError(f"`RGLRU` received exponent={exponent}, expected more than 0.")
        if not 0 < min_radius < max_radius < 1:
            raise ValueError(
                f"`RGLRU` received min_radius={min_radius} and max_radius={max_radius}, expected "
                "0 < min_radius < max_radius < 1."
            )
        self.inner_dim = inner_dim
        self.num_heads = num_heads
        self.short_taps = short_taps
        self.exponent = exponent
        self.min_radius = min_radius
        self.max_radius = max_radius
        self.scale_first = scale_first
        self.short_convolution = ShortConvolution(
            short_taps, True, dtype=self.dtype_policy, name="short_convolution"
        )

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.inner = inner = self.inner_dim or width
        if inner % self.num_heads:
            raise ValueError(
                f"`RGLRU` received num_heads={self.num_heads} for an inner width of {inner}; these "
                "heads do not divide the width. Choose a divisor, or set inner_dim."
            )

        def dense(units: int, name: str) -> Projection:
            return Projection(units, dtype=self.dtype_policy, name=name)

        self.input_projection = dense(inner, "input_projection")
        self.gate_projection = dense(inner, "gate_projection")
        self.output_projection = dense(width, "output_projection")
        wide_shape = (*input_shape[:-1], inner)
        self.input_projection.build(input_shape)
        self.gate_projection.build(input_shape)
        self.short_convolution.build(wide_shape)
        self.output_projection.build(wide_shape)
        size = inner // self.num_heads
        # The recurrence gate and the input gate stand side by side.
        self.gate_kernel = self.add_weight(
            (self.num_heads, size, 2 * size),
            keras.initializers.RandomNormal(stddev=size**-0.5),
            name="gate_kernel",
        )
        self.gate_bias = self.add_weight((self.num_heads, 2 * size), "zeros", name="gate_bias")
        self.log_decay = self.add_wide_weight((inner,), self._decays, "log_decay")
        super().build(input_shape)

    def _decays(self, shape: Any, dtype: Any) -> Any:
        """Lambda such that the decays where the gate is 1 are uniform in area on a ring."""
        area = keras.initializers.RandomUniform(self.min_radius**2, self.max_radius**2)
        square = area(shape, "float32")
        rate = -0.5 * ops.log(square) / self.exponent
        return ops.cast(ops.log(ops.expm1(rate)), dtype)

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
        before = state or {"short": None, "scan": None, "count": None}
        gate = ops.gelu(self.gate_projection(x), approximate=True)
        x = self.short_convolution(self.input_projection(x), state=before["short"], **options)
        x, short = x if return_state else (x, None)
        recurrence, entry = self._gates(x)
        log_a = -self.exponent * recurrence * ops.softplus(wide(self.log_decay))
        # 1 - a^2, exact also where a is near 1; the root's slope at 0 is kept finite.
        gain = ops.sqrt(ops.maximum(-ops.expm1(2.0 * log_a), 1e-12))
        after = {"short": short, "scan": None}
        if not self.scale_first:
            ones = ops.ones_like(log_a[:, :, :1])
            count = linear_recurrence(ones, ones, initial_state=before["count"], **options)
            count, after["count"] = count if return_state else (count, None)
            gain = ops.where(count == 1.0, ops.ones_like(gain), gain)
        h = linear_recurrence(
            log_a, gain * entry * wide(x), log_space=True, initial_state=before["scan"], **options
        )
        h, after["scan"] = h if return_state else (h, None)
        return self.output_projection(gate * ops.cast(h, gate.dtype)), after

    def _gates(self, x: Any) -> list[Any]:
        """The recurrence gate and the input gate, `(B, T, inner)` each."""
        size = self.inner // self.num_heads
        heads = ops.reshape(x, (-1, x.shape[1], self.num_heads, size))
        both = ops.einsum("bthi,hij->bthj", heads, self.gate_kernel) + self.gate_bias
        both = ops.sigmoid(wide(both))
        shape = (-1, x.shape[1], self.inner)
        return [ops.reshape(part, shape) for part in ops.split(both, 2, axis=-1)]

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        state = {
            "short": self.short_convolution.initial_state(batch_size),
            "scan": ops.zeros((batch_size, self.inner), self.log_decay.dtype),
        }
        if not self.scale_first:  # How many positions of the sequence there were.
            state["count"] = ops.zeros((batch_size, 1), self.log_decay.dtype)
        return state

    def get_config(self) -> dict[str, Any]:
        names = (
            "inner_dim", "num_heads", "short_taps", "exponent", "min_radius", "max_radius",
            "scale_first",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
