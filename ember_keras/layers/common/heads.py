"""What mixers with heads share: projections, the split into heads, and a norm for each head."""

from __future__ import annotations

from typing import Any, Literal

from keras import ops

from ember_keras.layers.base import EmberLayer, wide
from ember_keras.layers.common.projection import Projection
from ember_keras.ops.kernels.norms import head_norm


def head_width(layer: Any, width: int, heads: int, what: str = "num_heads") -> int:
    """The width of a head where `heads` of them share `width`; else a `ValueError`."""
    if width % heads:
        raise ValueError(
            f"`{type(layer).__name__}` received an input that makes {width} channels for "
            f"{heads} heads, which do not divide them. Choose another {what}."
        )
    return width // heads


def require_at_least(layer: Any, least: float, **given: Any) -> None:
    """Refuses arguments below `least`; None is let through."""
    for name, value in given.items():
        if value is not None and value < least:
            raise ValueError(
                f"`{type(layer).__name__}` received {name}={value}, expected at least {least}."
            )


def require_positive(layer: Any, **given: Any) -> None:
    """Refuses arguments that are not above 0; None is let through."""
    for name, value in given.items():
        if value is not None and not value > 0:
            raise ValueError(
                f"`{type(layer).__name__}` received {name}={value}, expected more than 0."
            )


def dense(
    layer: Any, units: int, name: str, input_width: int, use_bias: bool = False, **options: Any
) -> Projection:
    """A built linear map `input_width -> units` under the dtype policy of `layer`."""
    made = Projection(units, use_bias=use_bias, dtype=layer.dtype_policy, name=name, **options)
    made.build((None, None, input_width))
    return made


def split_heads(x: Any, heads: int) -> Any:
    """`(B, T, H W)` as `(B, T, H, W)`."""
    return ops.reshape(x, (-1, x.shape[1], heads, x.shape[2] // heads))


def join_heads(x: Any) -> Any:
    """`(B, T, H, W)` as `(B, T, H W)`."""
    return ops.reshape(x, (-1, x.shape[1], x.shape[2] * x.shape[3]))


def state_dtype(layer: Any) -> str:
    """The dtype of a recurrent state: float32, or float64 in a layer of float64."""
    return "float64" if layer.compute_dtype == "float64" else "float32"


def unit(x: Any, epsilon: float = 1e-6) -> Any:
    """Each vector along the last axis at length 1, in float32 or wider.

    Args:
        x: tensor.
        epsilon: float > 0, added to the square of the length: much shorter vectors stay short.
    """
    x = wide(x)
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + epsilon)


class HeadNorm(EmberLayer):
    """A norm of each head on its own: `(B, T, H, V) -> (B, T, H, V)`.

    `"rms"` divides by the root of the mean square (Zhang and Sennrich 2019, arXiv 1910.07467);
    `"layer"` also subtracts the mean, which makes it a group norm with a group a head. The
    arithmetic is float32 or wider.

    Args:
        kind: "rms" or "layer".
        shared: bool. One scale of width V for all heads, in place of one for each.
        scale: bool. Whether there is a scale.
        epsilon: float > 0. Added to the mean square.
        bias: bool. Whether there is a bias, of the scale's shape.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, H, V)`.
        gate: float tensor like x, or None: the norm is that of `x * silu(gate)`.

    Output shape: that of `x`.
    """

    def __init__(
        self,
        kind: Literal["rms", "layer"] = "rms",
        shared: bool = True,
        scale: bool = True,
        epsilon: float = 1e-5,
        bias: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = kind
        self.shared = shared
        self.scale = scale
        self.epsilon = epsilon
        self.bias = bias

    def build(self, input_shape: Any) -> None:
        shape = input_shape[-1:] if self.shared else input_shape[-2:]
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight(tuple(shape), "ones", name="scale", autocast=False)
        if self.bias:
            self.beta = self.add_weight(tuple(shape), "zeros", name="bias", autocast=False)
        super().build(input_shape)

    def call(self, x: Any, gate: Any = None) -> Any:
        tensors = [
            None if each is None else wide(ops.convert_to_tensor(each))
            for each in (x, gate, self.gamma, self.beta)
        ]
        y = head_norm(*tensors, centred=self.kind == "layer", epsilon=self.epsilon)
        return ops.cast(y, x.dtype)

    def compute_output_shape(self, input_shape: Any, gate_shape: Any = None) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "shared": self.shared,
            "scale": self.scale,
            "epsilon": self.epsilon,
            "bias": self.bias,
        }
