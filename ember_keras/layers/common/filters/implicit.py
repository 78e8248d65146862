"""A filter that a small network draws from the position."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.common.filters.base import Filter


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
