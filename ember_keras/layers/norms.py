"""The norms that blocks name: Keras's own, and one around zero."""

from __future__ import annotations

import numbers
from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config.shown import shown
from ember_keras.layers.arguments import is_finite
from ember_keras.layers.base import EmberLayer, wide

registry.norms.register("layer_norm")(keras.layers.LayerNormalization)
registry.norms.register("rms_norm")(keras.layers.RMSNormalization)


def build_norm(norm: Any, dtype: Any, name: str) -> Any:
    """Builds the norm of a layer, and refuses an epsilon that Keras's own take as it comes.

    Args:
        norm: str, dict or layer, as of `registry.norms`.
        dtype: the dtype policy of the layer that holds it.
        name: str, its name in the paths of its variables.
    """
    layer = registry.build_part(norm, ("norms",), dtype, name)
    epsilon = getattr(layer, "epsilon", 0.0)
    known = isinstance(epsilon, numbers.Real) and not isinstance(epsilon, bool)
    if not known or not is_finite(epsilon) or epsilon < 0:
        raise ValueError(
            f"`{type(layer).__name__}` received epsilon={shown(epsilon)}, expected a number of at "
            "least 0."
        )
    layer.supports_masking = True  # Keras's RMSNormalization does not say so.
    return layer


@registry.norms.register("zero_centred_rms_norm")
class ZeroCentredRMSNorm(EmberLayer):
    """The root mean square norm whose weights are differences from 1: `y = x / rms(x) (1 + w)`.

    Weight decay then pulls towards a plain norm, and half precision keeps small differences. The
    norm of Gemma (Gemma Team 2024, arXiv 2403.08295), Griffin and Qwen3-Next; the norm itself is
    that of Zhang and Sennrich 2019 (arXiv 1910.07467). The arithmetic is float32 or wider.

    Args:
        epsilon: float > 0. Added to the mean square.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(..., D)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    y = ek.layers.ZeroCentredRMSNorm()(np.ones((2, 5, 8), "float32"))
    print(y.shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        if epsilon <= 0:
            raise ValueError(
                f"`ZeroCentredRMSNorm` received epsilon={epsilon}, expected more than 0."
            )
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(input_shape[-1:], "zeros", name="scale", autocast=False)
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        y = wide(ops.convert_to_tensor(x))
        y = y * ops.rsqrt(ops.mean(ops.square(y), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(y * (1.0 + wide(self.scale)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
