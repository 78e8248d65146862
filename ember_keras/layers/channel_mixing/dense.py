"""A linear map of the channels."""

from __future__ import annotations

from typing import Any

import keras

from ember_keras import registry
from ember_keras.layers.channel_mixing.base import ChannelMixer
from ember_keras.layers.common.projection import Projection


@registry.channel_mixers.register("dense")
class DenseMixer(ChannelMixer):
    """One linear map of the channels, with an optional activation: `y = activation(x W + b)`.

    The cheapest channel mixer. It keeps the width, unlike `keras.layers.Dense`, so that it stacks.

    Args:
        activation: str or None. The name of a Keras activation.
        use_bias: bool. Whether `b` is there.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(..., D)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    y = ek.layers.DenseMixer(activation="relu")(np.ones((2, 5, 8), "float32"))
    print(y.shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, activation: str | None = None, use_bias: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activation
        self.use_bias = use_bias
        keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        width = self._width(input_shape)
        self.projection = Projection(
            width, self.activation, self.use_bias, dtype=self.dtype_policy, name="projection"
        )
        self.projection.build(input_shape)
        super().build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.projection(x)

    def output_weights(self) -> list[Any]:
        return list(self.projection.weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": self.activation,
            "use_bias": self.use_bias,
        }
