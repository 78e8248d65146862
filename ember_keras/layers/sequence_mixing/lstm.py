"""The long short-term memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide, wide_dtype
from ember_keras.layers.common.orthogonal import orthogonal
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.nonlinear_scan import nonlinear_scan


@dataclasses.dataclass(frozen=True)
class LSTMCell:
    """One position: what the input adds to the four gates, the state, and the recurrent kernel."""

    def __call__(self, x: Any, state: State, weights: Any) -> tuple[Any, State]:
        gates = x + ops.matmul(state["hidden"], weights)
        i, f, g, o = ops.split(gates, 4, axis=-1)
        cell = ops.sigmoid(f) * state["cell"] + ops.sigmoid(i) * ops.tanh(g)
        hidden = ops.sigmoid(o) * ops.tanh(cell)
        return hidden, {"hidden": hidden, "cell": cell}


@registry.sequence_mixers.register("lstm")
class LSTM(SequenceMixer):
    """A long short-term memory, as wide as its input.

    It counts, compares and toggles, which recurrences without a nonlinearity in the loop cannot;
    the loop is sequential, so it is slow on long sequences next to them. Its state is 2 D numbers.

    With gates `i, f, g, o = W x_t + b + R h_{t-1}`, the candidate `g` through a tanh and the others
    through sigmoids: `c_t = f * c_{t-1} + i * g`, `h_t = o * tanh(c_t)` (Hochreiter & Schmidhuber
    1997, Neural Computation 9(8); the forget gate is that of Gers et al. 2000, Neural Computation
    12(10)). `y_t = h_t`.

    Args:
        forget_bias: float. What the bias of the forget gate starts at; 1 starts with a long memory
            (Jozefowicz et al. 2015, ICML, section 3.2).
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.LSTM()
    y, state = mixer(np.ones((2, 7, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 7, 16) (2, 16)
    ```
    """

    def __init__(self, forget_bias: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.forget_bias = forget_bias

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._width = width
        self.input_projection = Projection(
            4 * width,
            bias_initializer=self._initial_bias,
            dtype=self.dtype_policy,
            name="input_projection",
        )
        self.input_projection.build(input_shape)
        self.recurrent_kernel = self.add_weight(
            shape=(width, 4 * width),
            initializer=orthogonal,
            name="recurrent_kernel",
            autocast=False,
        )
        super().build(input_shape)

    def _initial_bias(self, shape: Any, dtype: Any = None) -> Any:
        forget = ops.arange(shape[0]) // self._width == 1
        return ops.where(forget, ops.cast(self.forget_bias, dtype), ops.cast(0.0, dtype))

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        y = nonlinear_scan(
            LSTMCell(),
            self.input_projection(x),
            weights=wide(self.recurrent_kernel),
            initial_state=state,
            fresh_state=self.initial_mixer_state(1, None),
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )
        return y if return_state else (y, None)

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        dtype = wide_dtype(self.compute_dtype)
        return {
            "cell": ops.zeros((batch_size, self._width), dtype),
            "hidden": ops.zeros((batch_size, self._width), dtype),
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "forget_bias": self.forget_bias}
