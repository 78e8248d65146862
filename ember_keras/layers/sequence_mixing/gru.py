"""The gated recurrent unit."""

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
class GRUCell:
    """One position: what the input adds to the gates and the candidate, the state, the weights."""

    reset_after: bool

    def __call__(self, x: Any, state: State, weights: Any) -> tuple[Any, State]:
        hidden, width = state["hidden"], state["hidden"].shape[-1]
        if self.reset_after:
            inner = ops.matmul(hidden, weights["recurrent"])
            gates, inner = inner[:, : 2 * width], inner[:, 2 * width :]
            r, z = ops.split(ops.sigmoid(x[:, : 2 * width] + gates), 2, axis=-1)
            inner = r * (inner + weights["candidate_bias"])
        else:
            gates = ops.matmul(hidden, weights["gates"])
            r, z = ops.split(ops.sigmoid(x[:, : 2 * width] + gates), 2, axis=-1)
            inner = ops.matmul(r * hidden, weights["candidate"])
        candidate = ops.tanh(x[:, 2 * width :] + inner)
        hidden = candidate + z * (hidden - candidate)
        return hidden, {"hidden": hidden}


@registry.sequence_mixers.register("gru")
class GRU(SequenceMixer):
    """A gated recurrent unit, as wide as its input.

    Three quarters of the weights of an LSTM and half its state, D numbers; it often does as well,
    and counts less well.

    `r, z = sigmoid(W x_t + b + R h_{t-1})`, `n = tanh(W_n x_t + b_n + r * (R_n h_{t-1} + c_n))`,
    `h_t = (1 - z) * n + z * h_{t-1}`, `y_t = h_t`. This is the form of cuDNN, PyTorch and Keras.
    With `reset_after=False` it is that of the paper, `n = tanh(W_n x_t + b_n + R_n (r * h_{t-1}))`
    (Cho et al. 2014, arXiv 1406.1078, equations 5 to 8).

    Args:
        reset_after: bool. Whether the reset gate stands after the recurrent product, or before it,
            which then is two products in a row.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.GRU()
    y, state = mixer(np.ones((2, 7, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 7, 16) (2, 16)
    ```
    """

    def __init__(self, reset_after: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.reset_after = reset_after

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._width = width
        self.input_projection = Projection(
            3 * width, dtype=self.dtype_policy, name="input_projection"
        )
        self.input_projection.build(input_shape)
        self.recurrent_kernel = self.add_weight(
            shape=(width, 3 * width),
            initializer=orthogonal,
            name="recurrent_kernel",
            autocast=False,
        )
        if self.reset_after:
            self.candidate_bias = self.add_weight(
                shape=(width,), initializer="zeros", name="candidate_bias", autocast=False
            )
        super().build(input_shape)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        kernel, gates = wide(self.recurrent_kernel), 2 * self._width
        if self.reset_after:
            weights = {"recurrent": kernel, "candidate_bias": wide(self.candidate_bias)}
        else:
            weights = {"gates": kernel[:, :gates], "candidate": kernel[:, gates:]}
        y = nonlinear_scan(
            GRUCell(self.reset_after),
            self.input_projection(x),
            weights=weights,
            initial_state=state,
            fresh_state=self.initial_mixer_state(1, None),
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )
        return y if return_state else (y, None)

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {"hidden": ops.zeros((batch_size, self._width), wide_dtype(self.compute_dtype))}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reset_after": self.reset_after}
