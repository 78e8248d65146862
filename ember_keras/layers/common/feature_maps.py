"""What linear attention puts in the place of the exponential of softmax."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide


class FeatureMap(keras.layers.Layer):
    """A map of each head's queries and keys: `(B, T, H, K) -> (B, T, H, F)`, not negative in sum.

    The product of two mapped vectors stands where softmax attention has `exp(q . k)`.
    """

    def features(self, width: int) -> int:
        """F for K = `width`."""
        return width

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config()}


@registry.feature_maps.register("elu")
class EluFeatures(FeatureMap):
    """`elu(x) + 1`, positive (Katharopoulos et al. 2020, arXiv 2006.16236, equation 7)."""

    def call(self, x: Any) -> Any:
        x = wide(x)
        positive = x > 0
        # `elu` subtracts the 1 that would be added: of a small exponential little would be left.
        return ops.where(positive, x + 1.0, ops.exp(ops.where(positive, ops.zeros_like(x), x)))


@registry.feature_maps.register("relu")
class ReluFeatures(FeatureMap):
    """`relu(x)`, sparse (Kasai et al. 2021, T2R, arXiv 2103.13076, without its learned map)."""

    def call(self, x: Any) -> Any:
        return ops.relu(wide(x))


@registry.feature_maps.register("taylor")
class TaylorFeatures(FeatureMap):
    """The exponential to second order: `phi(q) . phi(k) = 1 + q.k + (q.k)^2 / 2`.

    With `x` scaled by `K^(-1/4)`. It has `1 + K + K^2` features, so heads are kept narrow; it
    recalls better than the others (Arora et al. 2024, Based, arXiv 2402.18668, section 4.1).
    """

    def features(self, width: int) -> int:
        return 1 + width + width * width

    def call(self, x: Any) -> Any:
        width = x.shape[-1]
        x = wide(x) * width**-0.25
        square = x[..., :, None] * x[..., None, :] * 0.5**0.5
        square = ops.reshape(square, (-1, *x.shape[1:-1], width * width))
        return ops.concatenate([ops.ones_like(x[..., :1]), x, square], axis=-1)


@registry.feature_maps.register("hedgehog")
class HedgehogFeatures(FeatureMap):
    """A learned map that can be as spiky as softmax: `[softmax(W x), softmax(-W x)]`, W a head.

    (Zhang et al. 2024, Hedgehog, arXiv 2402.04347, equations 5 and 6 in its softmax form.) The
    paper learns a map for queries and another for keys, with biases; here both share one, without.
    """

    def features(self, width: int) -> int:
        return 2 * width

    def build(self, input_shape: Any) -> None:
        heads, width = input_shape[-2:]
        self.kernel = self.add_weight((heads, width, width), _identities, name="kernel")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        x = ops.einsum("bthk,hkj->bthj", wide(x), wide(self.kernel))
        return ops.concatenate([ops.softmax(x, axis=-1), ops.softmax(-x, axis=-1)], axis=-1)


def _identities(shape: Any, dtype: Any = None) -> Any:
    return ops.zeros(shape, dtype) + ops.eye(shape[-1], dtype=dtype)
