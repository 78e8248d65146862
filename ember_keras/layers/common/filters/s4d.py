"""The filter of a diagonal state-space model."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.common.filters.base import Filter
from ember_keras.ops.engines import modes


@registry.filters.register("s4d")
class S4DFilter(Filter):
    """The impulse response of a diagonal state-space model, a separate one for each channel.

    Smooth, with memories of many lengths at once; good for signals. It never ends.

    `k_s = 2 Re(sum_n C_n (exp(step a_n) - 1) / a_n exp(step a_n s))`, a zero-order hold, with
    `a_n = -exp(log_decay_n) + i frequency_n` (Gu et al. 2022, S4D, arXiv 2206.11893, equations 2
    and 4). It starts as S4D-Lin: `a_n = -1/2 + i pi n`.

    Args:
        state_dim: int >= 1. The number n of modes a channel; each stands for a conjugate pair.
        min_step: float > 0. The smallest step a channel starts with; with the real part -1/2 that
            it starts with, its memory fades to 1 / e over 2 / step positions.
        max_step: float > `min_step`. The largest.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Example:

    ```python
    import ember_keras as ek

    filter = ek.layers.S4DFilter(state_dim=8)
    filter.build((4,))
    print(filter.taps(100).shape)  # (100, 4)
    ```
    """

    def __init__(
        self,
        state_dim: int = 16,
        min_step: float = 0.001,
        max_step: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if state_dim < 1:
            raise ValueError(f"`S4DFilter` received state_dim={state_dim}, expected at least 1.")
        if not 0 < min_step < max_step:
            raise ValueError(
                f"`S4DFilter` received min_step={min_step} and max_step={max_step}, expected "
                "0 < min_step < max_step."
            )
        self.state_dim = state_dim
        self.min_step = min_step
        self.max_step = max_step

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        shape = (channels, self.state_dim)
        uniform = keras.initializers.RandomUniform
        frequencies = np.tile(np.pi * np.arange(self.state_dim), (channels, 1))
        normal = keras.initializers.RandomNormal(stddev=0.5**0.5)
        self.log_step = self.add_weight(
            (channels,),
            uniform(math.log(self.min_step), math.log(self.max_step)),
            name="log_step",
            autocast=False,
        )
        self.log_decay = self.add_weight(
            shape, keras.initializers.Constant(math.log(0.5)), name="log_decay", autocast=False
        )
        self.frequency = self.add_weight(
            shape,
            lambda shape, dtype=None: ops.cast(frequencies, dtype or "float32"),
            name="frequency",
            autocast=False,
        )
        self.real = self.add_weight(shape, normal, name="real", autocast=False)
        self.imaginary = self.add_weight(shape, normal, name="imaginary", autocast=False)
        super().build(input_shape)

    def modes(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """The filter as `Re(sum_n c_n exp(s a_n))`: the pairs a and c, each `(channels, N)` twice.

        The first of a is the log of the decay and the second the angle; c is real and imaginary.
        """
        step, decay = ops.exp(wide(self.log_step))[:, None], ops.exp(wide(self.log_decay))
        frequency, real, imaginary = wide(self.frequency), wide(self.real), wide(self.imaginary)
        # The input weight (exp(step a) - 1) / a of each mode, in real arithmetic.
        log_decay, turn = -decay * step, frequency * step
        # exp(log_decay) cos(turn) - 1, without the difference of two numbers near 1.
        above_real = ops.expm1(log_decay) * ops.cos(turn) - 2.0 * ops.square(ops.sin(turn / 2))
        above_imaginary = ops.exp(log_decay) * ops.sin(turn)
        below = decay * decay + frequency * frequency
        b_real = (-decay * above_real + frequency * above_imaginary) / below
        b_imaginary = (-decay * above_imaginary - frequency * above_real) / below
        c_real = 2.0 * (real * b_real - imaginary * b_imaginary)
        c_imaginary = 2.0 * (real * b_imaginary + imaginary * b_real)
        return (log_decay, turn), (c_real, c_imaginary)

    def taps(self, length: int) -> Any:
        a, c = self.modes()
        return modes.taps(a, c, length)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "min_step": self.min_step,
            "max_step": self.max_step,
        }
