"""The minimal GRU and LSTM, whose gates see the input alone."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.linear_recurrence import linear_recurrence


class MinRecurrent(SequenceMixer):
    """What the two share: maps in and out, and a diagonal recurrence in log space."""

    _gates = 1

    def __init__(
        self, expansion: int = 1, positive: bool = True, use_bias: bool = True, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if expansion < 1:
            raise ValueError(
                f"`{type(self).__name__}` received expansion={expansion}, expected at least 1."
            )
        self.expansion = expansion
        self.positive = positive
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.inner = self.expansion * width
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.input_projection = Projection(
            (1 + self._gates) * self.inner, name="input_projection", **options
        )
        self.output_projection = Projection(width, name="output_projection", **options)
        self.input_projection.build(input_shape)
        self.output_projection.build((*input_shape[:-1], self.inner))
        super().build(input_shape)

    def _log_decay_and_entry(self, *gates: Any) -> tuple[Any, Any]:
        """The logarithm of what stays of the past, and the part that enters."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no gates.")

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        parts = ops.split(self.input_projection(x), 1 + self._gates, axis=-1)
        candidate, *gates = map(wide, parts)
        if self.positive:
            below = ops.sigmoid(ops.minimum(candidate, 0.0))
            candidate = below + ops.relu(candidate)
        log_decay, entry = self._log_decay_and_entry(*gates)
        h, state = linear_recurrence(
            log_decay,
            entry * candidate,
            log_space=True,
            initial_state=state,
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        return self.output_projection(ops.cast(h, x.dtype)), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        kind = "float64" if self.variable_dtype == "float64" else "float32"
        return ops.zeros((batch_size, self.inner), kind)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "expansion": self.expansion,
            "positive": self.positive,
            "use_bias": self.use_bias,
        }


@registry.sequence_mixers.register("min_gru")
class MinGRU(MinRecurrent):
    """The minimal GRU: one gate that sees the input alone, so that all of time runs at once.

    The smallest gated recurrence; where a GRU did well on long inputs, try this first.

    `z_t = sigmoid(W_z x_t)`, `c_t = g(W_h x_t)`, `h_t = (1 - z_t) h_{t-1} + z_t c_t`,
    `y_t = W_o h_t`, with `g(c) = c + 1/2` for c >= 0 and `sigmoid(c)` below (Feng et al. 2024,
    arXiv 2410.01201, section 3.1 and appendix B). The decays are in log space; the state begins
    at 0.

    Args:
        expansion: int >= 1. The state has `expansion` D numbers.
        positive: bool. Whether the candidates go through g, as in the paper's log-space form; the
            plain form of its section 3.1 is False.
        use_bias: bool. Whether the maps have biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.MinGRU(expansion=2)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self, expansion: int = 1, positive: bool = True, use_bias: bool = True, **kwargs: Any
    ):
        super().__init__(expansion, positive, use_bias, **kwargs)

    def _log_decay_and_entry(self, *gates: Any) -> tuple[Any, Any]:
        (update,) = gates
        return -ops.softplus(update), ops.sigmoid(update)


@registry.sequence_mixers.register("min_lstm")
class MinLSTM(MinRecurrent):
    """The minimal LSTM: a forget and an input gate that see the input alone and sum to one.

    A little more expressive than `min_gru`, at three maps in place of two.

    `f_t = sigmoid(W_f x_t)`, `i_t = sigmoid(W_i x_t)`, `c_t = g(W_h x_t)`,
    `h_t = (f_t h_{t-1} + i_t c_t) / (f_t + i_t)`, `y_t = W_o h_t`, with `g(c) = c + 1/2` for
    c >= 0 and `sigmoid(c)` below (Feng et al. 2024, arXiv 2410.01201, section 3.2 and appendix
    B). The decays are in log space; the state begins at 0.

    Args:
        expansion: int >= 1. The state has `expansion` D numbers.
        positive: bool. Whether the candidates go through g, as in the paper's log-space form; the
            plain form of its section 3.2 is False.
        use_bias: bool. Whether the maps have biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.MinLSTM()
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _gates = 2

    def __init__(
        self, expansion: int = 1, positive: bool = True, use_bias: bool = True, **kwargs: Any
    ):
        super().__init__(expansion, positive, use_bias, **kwargs)

    def _log_decay_and_entry(self, *gates: Any) -> tuple[Any, Any]:
        forget, entry = gates
        # The logarithm of i / f, without a quotient of two small numbers.
        ratio = ops.softplus(-forget) - ops.softplus(-entry)
        return -ops.softplus(ratio), ops.sigmoid(ratio)
