"""A diagonal state-space model."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.filters.s4d import S4DFilter
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.long_convolution import build_filter
from ember_keras.ops.engines.linear_recurrence import diagonal_state_space


@registry.sequence_mixers.register("s4d")
class S4D(SequenceMixer):
    """A diagonal state-space model for each channel: a smooth memory of many lengths at once.

    For audio and other signals, and very long inputs; nothing in it is chosen by content. It trains
    as a long convolution and runs step by step on a state of constant size, which `fft_conv` with
    the filter `s4d` does not have.

    `h_t = exp(step a) h_{t-1} + (exp(step a) - 1) / a x_t`, `y_t = 2 Re(C h_t) + d * x_t`, with
    N complex modes `a_n = -exp(log_decay_n) + i frequency_n` and a step for each channel, and
    `W_1 gelu(y) * sigmoid(W_2 gelu(y))` (Gu et al. 2022, arXiv 2206.11893, equations 2 and 4, and
    the layer of section 5). It starts as S4D-Lin: `a_n = -1/2 + i pi n`.

    Args:
        state_dim: int >= 1. N, the modes of a channel; each stands for a conjugate pair.
        min_step: float > 0. The smallest step a channel starts with; with the real part -1/2 that
            it starts with, its memory fades to 1 / e over 2 / step positions.
        max_step: float > `min_step`. The largest.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.S4D(state_dim=8)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        state_dim: int = 32,
        min_step: float = 0.001,
        max_step: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, state_dim=state_dim)
        if not 0 < min_step < max_step:
            raise ValueError(
                f"`S4D` received min_step={min_step} and max_step={max_step}, expected "
                "0 < min_step < max_step."
            )
        self.state_dim = state_dim
        self.min_step = min_step
        self.max_step = max_step
        self.filter: S4DFilter = build_filter(
            {"type": "s4d", "state_dim": state_dim, "min_step": min_step, "max_step": max_step},
            self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        self.width = width = require_sequence(self, input_shape)
        self.filter.build((width,))
        self.skip = self.add_weight(
            (width,), keras.initializers.RandomNormal(stddev=1.0), name="skip"
        )
        self.output_projection = heads.dense(self, 2 * width, "output_projection", width, True)
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
        a, c = self.filter.modes()
        y = diagonal_state_space(
            x,
            a,
            c,
            wide(self.skip),
            initial_state=state,
            mask=mask,
            segment_ids=segment_ids,
            return_state=return_state,
        )
        y, state = (y[0], list(y[1])) if return_state else (y, None)
        value, gate = ops.split(self.output_projection(ops.gelu(y, approximate=False)), 2, axis=-1)
        return value * ops.sigmoid(gate), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self.width, self.state_dim)
        return [ops.zeros(shape, heads.state_dtype(self)) for _ in range(2)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "min_step": self.min_step,
            "max_step": self.max_step,
        }
