"""Experts of one kind, whose weights are stacked, over tokens sorted by expert."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import EmberLayer
from ember_keras.layers.channel_mixing.mlp import GATES, hidden_width
from ember_keras.ops import kernels
from ember_keras.ops.engines.grouped_matmul import grouped_matmul


class Experts(EmberLayer):
    """As many experts of one kind as `connect` says, each on its own rows.

    A subclass writes `build` and `call`. Its weights have the expert as their first axis.

    Call arguments:
        x: float tensor `(M, D)`, the rows of the first expert, then those of the second, and so on.
        offsets: int tensor `(E + 1,)`, where the rows of each begin, and where the last ones end.
        training: bool.

    Output shape: `(M, D)`; 0 for a row of none of them.
    """

    count = 1

    def connect(self, count: int) -> None:
        """Says how many experts there are."""
        self.count = count

    def weighted_sum(self, x: Any, chosen: Any, weights: Any, training: bool | None) -> Any | None:
        """The sum of what each token's experts make of it, where a kernel has it in one call.

        Args:
            x: float tensor `(N, D)`.
            chosen: int tensor `(N, K)`, numbers of experts; `count` for none.
            weights: float tensor `(N, K)`.
            training: bool.

        Returns: `(N, D)`, or None where tokens have to be sorted and run as rows.
        """
        return None

    def _add_stack(self, inputs: int, outputs: int, name: str) -> Any:
        """A stack of maps `(E, inputs, outputs)`, each of which starts as a dense layer does."""
        limit = (6.0 / (inputs + outputs)) ** 0.5
        start = keras.initializers.RandomUniform(-limit, limit)
        return self.add_weight((self.count, inputs, outputs), start, name=name)

    def _add_bias(self, width: int, name: str) -> Any:
        return self.add_weight((self.count, width), "zeros", name=name)

    def _apply(self, x: Any, kernel: Any, bias: Any, offsets: Any) -> Any:
        """`x_m W_e + b_e`."""
        y = grouped_matmul(x, ops.convert_to_tensor(kernel), offsets)
        if bias is None:
            return y
        # A product with a column of ones, so that its gradient is a sum a group as well.
        ones = ops.ones_like(x[:, :1])
        return y + grouped_matmul(ones, ops.convert_to_tensor(bias)[:, None], offsets)


@registry.experts.register("dense")
class DenseExperts(Experts):
    """One linear map an expert, with an optional activation, as `dense` is.

    Args:
        activation: str or None. The name of a Keras activation.
        use_bias: bool. Whether there are biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of all stacked experts, `x` `(M, D)` and `offsets` `(E + 1,)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(expert={"type": "dense", "activation": "relu"})
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, activation: str | None = None, use_bias: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activation
        self.use_bias = use_bias
        keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        self.kernel = self._add_stack(width, width, "kernel")
        self.bias = self._add_bias(width, "bias") if self.use_bias else None
        super().build(input_shape)

    def call(self, x: Any, offsets: Any = None, training: bool | None = None) -> Any:
        return keras.activations.get(self.activation)(
            self._apply(x, self.kernel, self.bias, offsets)
        )

    def output_weights(self) -> list[Any]:
        return [each for each in (self.kernel, self.bias) if each is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": self.activation,
            "use_bias": self.use_bias,
        }


@registry.experts.register("mlp")
class MLPExperts(Experts):
    """A multilayer perceptron an expert, as `mlp` is: `activation(x W1 + b1) W2 + b2`.

    Args:
        hidden_dim: int or None. The width between; 4 times the model width when None.
        activation: str. The name of a Keras activation.
        use_bias: bool. Whether the biases are there.
        dropout: float in [0, 1). The fraction of hidden units dropped in training.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of all stacked experts, `x` `(M, D)` and `offsets` `(E + 1,)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(expert={"type": "mlp", "hidden_dim": 16})
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
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
        hidden_width(self, hidden_dim, 8, 4.0)
        keras.activations.get(activation)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        hidden = hidden_width(self, self.hidden_dim, width, 4.0)
        self.up = self._add_stack(width, hidden, "up")
        self.up_bias = self._add_bias(hidden, "up_bias") if self.use_bias else None
        self.down = self._add_stack(hidden, width, "down")
        self.down_bias = self._add_bias(width, "down_bias") if self.use_bias else None
        super().build(input_shape)

    def call(self, x: Any, offsets: Any = None, training: bool | None = None) -> Any:
        hidden = self._apply(x, self.up, self.up_bias, offsets)
        hidden = keras.activations.get(self.activation)(hidden)
        hidden = self.drop(hidden, training=training)
        return self._apply(hidden, self.down, self.down_bias, offsets)

    def output_weights(self) -> list[Any]:
        return [each for each in (self.down, self.down_bias) if each is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
        }


@registry.experts.register("gated_mlp")
class GatedMLPExperts(Experts):
    """A multilayer perceptron with a gate an expert, as `gated_mlp` is: `(g(x W1) * x W2) W3`.

    Args:
        hidden_dim: int or None. The width between; 8/3 of the model width, rounded up to a
            multiple of 8, when None.
        gate: "swiglu", "geglu", "geglu_tanh" or "reglu", as of `gated_mlp`.
        use_bias: bool. Whether the three maps have biases.
        dropout: float in [0, 1). The fraction of hidden units dropped in training.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of all stacked experts, `x` `(M, D)` and `offsets` `(E + 1,)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(expert={"type": "gated_mlp", "hidden_dim": 16})
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        hidden_dim: int | None = None,
        gate: Literal["swiglu", "geglu", "geglu_tanh", "reglu"] = "swiglu",
        use_bias: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.gate = gate
        self.use_bias = use_bias
        self.dropout = dropout
        hidden_width(self, hidden_dim, 8, 8 / 3)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        hidden = hidden_width(self, self.hidden_dim, width, 8 / 3)
        self.gate_up = self._add_stack(width, 2 * hidden, "gate_up")
        self.gate_up_bias = self._add_bias(2 * hidden, "gate_up_bias") if self.use_bias else None
        self.down = self._add_stack(hidden, width, "down")
        self.down_bias = self._add_bias(width, "down_bias") if self.use_bias else None
        super().build(input_shape)

    def weighted_sum(self, x: Any, chosen: Any, weights: Any, training: bool | None) -> Any | None:
        gate_up, down = (ops.convert_to_tensor(each) for each in (self.gate_up, self.down))
        options = {
            "gate": self.gate,
            "biased": self.use_bias,
            "dropped": bool(training and self.dropout),
        }
        request = kernels.request("gated_experts", {"x": x, "gate_up": gate_up}, **options)
        kernel = kernels.choose(request)
        return None if kernel is None else kernel.run(x, chosen, weights, gate_up, down)

    def call(self, x: Any, offsets: Any = None, training: bool | None = None) -> Any:
        both = self._apply(x, self.gate_up, self.gate_up_bias, offsets)
        gate, up = ops.split(both, 2, axis=-1)
        hidden = GATES[self.gate](gate) * up
        hidden = self.drop(hidden, training=training)
        return self._apply(hidden, self.down, self.down_bias, offsets)

    def output_weights(self) -> list[Any]:
        return [each for each in (self.down, self.down_bias) if each is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "gate": self.gate,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
        }
