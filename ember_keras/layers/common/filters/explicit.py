"""Filters whose taps are weights, as they are or under a decaying window."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.common.filters.base import Filter


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


@registry.filters.register("decay")
class DecayFilter(Filter):
    """A filter whose taps are weights under a window that decays exponentially.

    Between `explicit` and `implicit`: every tap is free, and what is far away starts, and tends to
    stay, faint.

    `k_s = window_c(s) w_s` for s < `num_taps`, and nothing beyond, with
    `window_c(s) = sqrt(1 - exp(-2 rate_c)) exp(-rate_c s)`: the explicit filters with exponential
    decay swept across channels of Ku et al. 2025 (StripedHyena 2, arXiv 2503.01868, Hyena-MR). The
    same window weighs the implicit filters of Hyena (Poli et al. 2023, arXiv 2302.10866). Here the
    rates are learned, and the window has unit energy, so that a filter neither swells nor fades a
    signal at the start of training.

    Args:
        num_taps: int >= 1. The number of taps. The slowest window falls to 1% over them at
            the start.
        fast_decay: float in (0, 1]. The part of `num_taps` over which the fastest window falls to
            1% at the start.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Example:

    ```python
    import ember_keras as ek

    filter = ek.layers.DecayFilter(num_taps=32)
    filter.build((8,))
    print(filter.taps(100).shape)  # (32, 8)
    ```
    """

    def __init__(self, num_taps: int = 128, fast_decay: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        if num_taps < 1:
            raise ValueError(f"`DecayFilter` received num_taps={num_taps}, expected at least 1.")
        if not 0 < fast_decay <= 1:
            raise ValueError(f"`DecayFilter` received fast_decay={fast_decay}, expected in (0, 1].")
        self.num_taps = num_taps
        self.fast_decay = fast_decay

    @property
    def size(self) -> int | None:
        return self.num_taps

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            shape=(self.num_taps, channels),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="kernel",
            autocast=False,
        )
        slow = math.log(100) / self.num_taps
        rates = np.geomspace(slow / self.fast_decay, slow, channels)
        self.log_rate = self.add_weight(
            (channels,),
            lambda shape, dtype=None: ops.cast(np.log(rates), dtype or "float32"),
            name="log_rate",
            autocast=False,
        )
        super().build(input_shape)

    def taps(self, length: int) -> Any:
        kernel, rate = wide(self.kernel), ops.exp(wide(self.log_rate))
        length = min(length, self.num_taps)
        position = ops.arange(length, dtype=kernel.dtype)[:, None]
        window = ops.exp(-rate * position) * ops.sqrt(1.0 - ops.exp(-2.0 * rate))
        return window * kernel[:length]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_taps": self.num_taps,
            "fast_decay": self.fast_decay,
        }
