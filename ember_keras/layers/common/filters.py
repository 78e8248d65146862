"""Filters of long convolutions: what gives `fft_conv` its taps."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide


class Filter(keras.layers.Layer):
    """A causal filter for each of `channels` channels; it is asked for as many taps as are needed.

    It is built with `build((channels,))` and read with `taps(length)`. Tap s weighs what came s
    positions ago, and does not depend on `length`: a longer filter begins with the shorter one.
    """

    @property
    def size(self) -> int | None:
        """The number of taps of a finite filter; None for one that never ends."""
        return None

    def taps(self, length: int) -> Any:
        """The first taps, `(min(length, size), channels)`, in float32 or wider."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no taps.")

    def call(self, length: int) -> Any:
        return self.taps(length)


@registry.filters.register("explicit")
class ExplicitFilter(Filter):
    """A filter whose taps are its weights.

    The plainest, for short memories: `k_s = w_s` for s < `num_taps`, and nothing beyond.

    Args:
        num_taps: int >= 1. The number of taps.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Example:

    ```python
    import ember_keras as ek

    filter = ek.layers.ExplicitFilter(num_taps=16)
    filter.build((8,))
    print(filter.taps(100).shape)  # (16, 8)
    ```
    """

    def __init__(self, num_taps: int = 64, **kwargs: Any):
        super().__init__(**kwargs)
        if num_taps < 1:
            raise ValueError(f"`ExplicitFilter` received num_taps={num_taps}, expected at least 1.")
        self.num_taps = num_taps

    @property
    def size(self) -> int | None:
        return self.num_taps

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(self.num_taps, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=self.num_taps**-0.5),
            name="kernel",
            autocast=False,
        )
        super().build(input_shape)

    def taps(self, length: int) -> Any:
        return wide(self.kernel)[: min(length, self.num_taps)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_taps": self.num_taps}


@registry.filters.register("implicit")
class ImplicitFilter(Filter):
    """A filter that a small sine network draws from the position, under a decaying window.

    As long as the sequence, with a number of weights that does not grow with it.

    `k_s = window_s * MLP(s)`, where the network sees the position and `num_bands` pairs of sines
    and cosines of it, and has sine activations; the window of channel c is `exp(-rate_c s)`
    (Poli et al. 2023, Hyena, arXiv 2302.10866, section 3.3 and appendix A). The windows are scaled
    to unit energy, so that a filter neither swells nor fades a signal at the start of training.

    Args:
        hidden_dim: int >= 1. The width of the sine network.
        num_layers: int >= 1. Its hidden layers.
        num_bands: int >= 1. Pairs of sines and cosines that describe the position.
        sine_frequency: float > 0. The frequency of the sine activations; higher draws rougher
            filters.
        time_scale: int >= 1. The length, in positions, that the position is measured in. The
            slowest window falls to 1% over it; positions beyond it are valid, and faint.
        fast_decay: float in (0, 1]. The part of `time_scale` over which the fastest window falls
            to 1%.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Example:

    ```python
    import ember_keras as ek

    filter = ek.layers.ImplicitFilter()
    filter.build((8,))
    print(filter.taps(100).shape)  # (100, 8)
    ```
    """

    def __init__(
        self,
        hidden_dim: int = 32,
        num_layers: int = 2,
        num_bands: int = 8,
        sine_frequency: float = 6.0,
        time_scale: int = 1024,
        fast_decay: float = 0.01,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (
            ("hidden_dim", hidden_dim),
            ("num_layers", num_layers),
            ("num_bands", num_bands),
            ("time_scale", time_scale),
        ):
            if value < 1:
                raise ValueError(f"`ImplicitFilter` received {name}={value}, expected at least 1.")
        if not 0 < fast_decay <= 1:
            raise ValueError(
                f"`ImplicitFilter` received fast_decay={fast_decay}, expected in (0, 1]."
            )
        if sine_frequency <= 0:
            raise ValueError(
                f"`ImplicitFilter` received sine_frequency={sine_frequency}, expected above 0."
            )
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.num_bands = num_bands
        self.sine_frequency = sine_frequency
        self.time_scale = time_scale
        self.fast_decay = fast_decay

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        uniform = keras.initializers.RandomUniform
        sizes = [1 + 2 * self.num_bands] + [self.hidden_dim] * self.num_layers
        self.kernels, self.biases = [], []
        for i, (inputs, units) in enumerate(zip(sizes, sizes[1:], strict=False)):
            limit = (6 / inputs) ** 0.5 / (self.sine_frequency if i else 1.0)
            self.kernels.append(
                self.add_weight(
                    (inputs, units), uniform(-limit, limit), name=f"kernel_{i}", autocast=False
                )
            )
            self.biases.append(
                self.add_weight((units,), uniform(-limit, limit), name=f"bias_{i}", autocast=False)
            )
        # A sine of a wide input has mean square 1/2.
        scale = keras.initializers.RandomNormal(stddev=(2 / self.hidden_dim) ** 0.5)
        self.head = self.add_weight((self.hidden_dim, channels), scale, name="head", autocast=False)
        slow = math.log(100) / self.time_scale
        rates = np.geomspace(slow / self.fast_decay, slow, channels)
        self.log_rate = self.add_weight(
            (channels,),
            lambda shape, dtype=None: ops.cast(np.log(rates), dtype or "float32"),
            name="log_rate",
            autocast=False,
        )
        super().build(input_shape)

    def taps(self, length: int) -> Any:
        head, rate = wide(self.head), ops.exp(wide(self.log_rate))
        position = ops.arange(length, dtype=head.dtype)[:, None]
        bands = 2 * math.pi * ops.arange(1, self.num_bands + 1, dtype=head.dtype)
        scaled = position / self.time_scale
        hidden = ops.concatenate([scaled, ops.sin(scaled * bands), ops.cos(scaled * bands)], axis=1)
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            hidden = ops.matmul(hidden, wide(kernel)) + wide(bias)
            hidden = ops.sin(self.sine_frequency * hidden)
        window = ops.exp(-rate * position) * ops.sqrt(1.0 - ops.exp(-2.0 * rate))
        return window * ops.matmul(hidden, head)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "num_bands": self.num_bands,
            "sine_frequency": self.sine_frequency,
            "time_scale": self.time_scale,
            "fast_decay": self.fast_decay,
        }


@registry.filters.register("s4d")
class S4DFilter(Filter):
    """The impulse response of a diagonal state-space model, a separate one for each channel.

    Smooth, with memories of many lengths at once; good for signals. It never ends.

    `k_s = 2 Re(sum_n C_n (exp(step a_n) - 1) / a_n exp(step a_n s))`, a zero-order hold, with
    `a_n = -exp(log_decay_n) + i frequency_n` (Gu et al. 2022, S4D, arXiv 2206.11893, equations 2
    and 4). It starts as S4D-Lin: `a_n = -1/2 + i pi n`.

    Args:
        state_dim: int >= 1. The number n of modes a channel; each stands for a conjugate pair.
        min_step: float > 0. The smallest step a channel starts with; 1 / step is about its memory
            in positions.
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

    def taps(self, length: int) -> Any:
        step, decay = ops.exp(wide(self.log_step))[:, None], ops.exp(wide(self.log_decay))
        frequency, real, imaginary = wide(self.frequency), wide(self.real), wide(self.imaginary)
        # The input weight (exp(step a) - 1) / a of each mode, in real arithmetic.
        grown, turn = ops.exp(-decay * step), frequency * step
        above_real, above_imaginary = grown * ops.cos(turn) - 1.0, grown * ops.sin(turn)
        below = decay * decay + frequency * frequency
        b_real = (-decay * above_real + frequency * above_imaginary) / below
        b_imaginary = (-decay * above_imaginary - frequency * above_real) / below
        c_real = 2.0 * (real * b_real - imaginary * b_imaginary)
        c_imaginary = 2.0 * (real * b_imaginary + imaginary * b_real)
        position = ops.arange(length, dtype=real.dtype)[:, None, None]
        size = ops.exp(-decay * step * position)
        angle = turn * position
        return ops.sum(size * (c_real * ops.cos(angle) - c_imaginary * ops.sin(angle)), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "state_dim": self.state_dim,
            "min_step": self.min_step,
            "max_step": self.max_step,
        }
