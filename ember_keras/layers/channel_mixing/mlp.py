"""Multilayer perceptrons at each position, plain and gated."""

from __future__ import annotations

import functools
from typing import Any, Literal

import keras

from ember_keras import registry
from ember_keras.layers.channel_mixing.base import ChannelMixer
from ember_keras.layers.common.projection import Projection


def hidden_width(layer: ChannelMixer, hidden_dim: int | None, width: int, ratio: float) -> int:
    """The hidden width as given, or `ratio` times the model width, up to a multiple of 8."""
    if hidden_dim is None:
        return -(-int(ratio * width) // 8) * 8
    if hidden_dim < 1:
        raise ValueError(
            f"`{type(layer).__name__}` received hidden_dim={hidden_dim}, expected at least 1, or "
            f"None for {ratio:.3g} times the model width."
        )
    return hidden_dim


@registry.channel_mixers.register("mlp")
class MLP(ChannelMixer):
    """Two linear maps with an activation between: `y = activation(x W1 + b1) W2 + b2`.

    The channel mixer of the first transformers (Vaswani et al. 2017, arXiv 1706.03762, equation 2).

    Args:
        hidden_dim: int or None. The width between; 4 times the model width when None.
        activation: str. The name of a Keras activation.
        use_bias: bool. Whether the biases are there.
        dropout: float in [0, 1). The fraction of hidden units dropped in training.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(..., D)`.
        training: bool.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    y = ek.layers.MLP(hidden_dim=32)(np.ones((2, 5, 8), "float32"))
    print(y.shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        use_bias: bool = True,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.activation = activation
        self.use_bias = use_bias
        self.dropout = dropout
        keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        width = self._width(input_shape)
        hidden = hidden_width(self, self.hidden_dim, width, 4.0)
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.up = Projection(hidden, self.activation, name="up", **options)
        self.down = Projection(width, name="down", **options)
        self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop")
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], hidden))
        super().build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.down(self.drop(self.up(x), training=training))

    def output_weights(self) -> list[Any]:
        return list(self.down.weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
        }


GATES = {
    "swiglu": keras.activations.silu,
    "geglu": keras.activations.gelu,
    "geglu_tanh": functools.partial(keras.activations.gelu, approximate=True),
    "reglu": keras.activations.relu,
}


@registry.channel_mixers.register("gated_mlp")
class GatedMLP(ChannelMixer):
    """A multilayer perceptron with a gate: `y = (g(x W1) * x W2) W3`.

    SwiGLU, GeGLU and ReGLU are the gates SiLU, GELU and ReLU (Shazeer 2020, arXiv 2002.05202,
    equations 5 and 6). At equal size it learns better than `MLP`.

    Args:
        hidden_dim: int or None. The width between; 8/3 of the model width, rounded up to a
            multiple of 8, when None, which makes as many parameters as an `MLP` of 4 times the
            width.
        gate: "swiglu", "geglu", "geglu_tanh" (whose GELU is the approximation by tanh) or "reglu".
        use_bias: bool. Whether the three maps have biases.
        dropout: float in [0, 1). The fraction of hidden units dropped in training.
        output_gate: bool. Whether y is multiplied by `sigmoid(x w)`, one number a position, as the
            expert is that all tokens share in Qwen2-MoE (arXiv 2407.10671, section 2.2).
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(..., D)`.
        training: bool.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    y = ek.layers.GatedMLP(gate="geglu")(np.ones((2, 5, 8), "float32"))
    print(y.shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        hidden_dim: int | None = None,
        gate: Literal["swiglu", "geglu", "geglu_tanh", "reglu"] = "swiglu",
        use_bias: bool = False,
        dropout: float = 0.0,
        output_gate: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.gate = gate
        self.use_bias = use_bias
        self.dropout = dropout
        self.output_gate = output_gate

    def build(self, input_shape: Any) -> None:
        width = self._width(input_shape)
        hidden = hidden_width(self, self.hidden_dim, width, 8 / 3)
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.gate_up = Projection(2 * hidden, name="gate_up", **options)
        self.down = Projection(width, name="down", **options)
        self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop")
        self.gate_up.build(input_shape)
        if self.output_gate:
            self.scalar_gate = Projection(
                1, use_bias=False, dtype=self.dtype_policy, name="scalar_gate"
            )
            self.scalar_gate.build(input_shape)
        self.down.build((*input_shape[:-1], hidden))
        super().build(input_shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        gate, up = keras.ops.split(self.gate_up(x), 2, axis=-1)
        hidden = GATES[self.gate](gate) * up
        y = self.down(self.drop(hidden, training=training))
        return y * keras.ops.sigmoid(self.scalar_gate(x)) if self.output_gate else y

    def output_weights(self) -> list[Any]:
        return list(self.down.weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "gate": self.gate,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "output_gate": self.output_gate,
        }
