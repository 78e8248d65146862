"""The hierarchically gated recurrent unit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.linear_recurrence import linear_recurrence


@registry.sequence_mixers.register("hgrn")
class HGRN(SequenceMixer):
    """The HGRN mixer: a complex gated recurrence whose forget gates have a lower bound.

    For deep stacks over long sequences: low bounds below and high ones above let the upper layers
    remember what the lower ones are free to forget.

    `h_t = lambda_t exp(i theta) * h_{t-1} + (1 - lambda_t) * c_t` with
    `c_t = silu(W_re x_t) + i silu(W_im x_t)` and
    `lambda_t = gamma + (1 - gamma) sigmoid(W_f x_t)`; the output is
    `W_o norm(sigmoid(W_g x_t) * [Re h_t, Im h_t])` (Qin et al. 2023, arXiv 2311.04823, section
    3). The paper learns the bounds gamma of all its layers together, so that they rise with depth;
    a layer does not know its place, so gamma is an argument here, and rises with depth where it is
    given so.

    Args:
        expansion: int >= 1. The state has `expansion` D complex numbers.
        lower_bound: float in [0, 1). gamma, what the forget gate cannot go below.
        complex: bool. False drops the angles and the imaginary parts: a real recurrence.
        rotary_base: float > 1. The angles begin at `rotary_base^(-n / N)`, n = 0 .. N - 1.
        use_bias: bool. Whether the maps have biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.HGRN(lower_bound=0.9)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        expansion: int = 1,
        lower_bound: float = 0.0,
        complex: bool = True,
        rotary_base: float = 10000.0,
        use_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if expansion < 1:
            raise ValueError(f"`HGRN` received expansion={expansion}, expected at least 1.")
        if not 0 <= lower_bound < 1:
            raise ValueError(
                f"`HGRN` received lower_bound={lower_bound}, expected at least 0 and below 1, "
                "where nothing would enter."
            )
        if rotary_base <= 1:
            raise ValueError(f"`HGRN` received rotary_base={rotary_base}, expected more than 1.")
        self.expansion = expansion
        self.lower_bound = lower_bound
        self.complex = complex
        self.rotary_base = rotary_base
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.inner = inner = self.expansion * width
        parts = 2 if self.complex else 1

        def dense(units: int, name: str) -> Projection:
            return Projection(units, use_bias=self.use_bias, dtype=self.dtype_policy, name=name)

        # The candidates, real and imaginary, stand before the forget gate.
        self.input_projection = dense((parts + 1) * inner, "input_projection")
        self.gate_projection = dense(parts * inner, "gate_projection")
        self.norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="norm")
        self.output_projection = dense(width, "output_projection")
        self.input_projection.build(input_shape)
        self.gate_projection.build(input_shape)
        self.norm.build((*input_shape[:-1], parts * inner))
        self.output_projection.build((*input_shape[:-1], parts * inner))
        if self.complex:
            angles = -np.log(self.rotary_base) * np.arange(inner) / inner
            self.log_angle = self.add_wide_weight(
                (inner,), lambda _, dtype: ops.cast(angles, dtype), "log_angle"
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
        parts = 2 if self.complex else 1
        *candidates, forget = ops.split(self.input_projection(x), parts + 1, axis=-1)
        enters = (1.0 - self.lower_bound) * ops.sigmoid(-wide(forget))
        b = [enters * wide(ops.silu(candidate)) for candidate in candidates]
        stays = 1.0 - enters
        a = [stays]
        if self.complex:
            angle = ops.exp(wide(self.log_angle))
            a = [stays * ops.cos(angle), stays * ops.sin(angle)]
        h, state = linear_recurrence(
            tuple(a) if self.complex else a[0],
            tuple(b) if self.complex else b[0],
            initial_state=state,
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        h = ops.concatenate(h, axis=-1) if self.complex else h
        gate = ops.sigmoid(self.gate_projection(x))
        y = self.output_projection(self.norm(gate * ops.cast(h, x.dtype)))
        return y, list(state) if self.complex else state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        kind = "float64" if self.variable_dtype == "float64" else "float32"
        zeros = [ops.zeros((batch_size, self.inner), kind) for _ in range(2)]
        return zeros if self.complex else zeros[0]

    def get_config(self) -> dict[str, Any]:
        names = ("expansion", "lower_bound", "complex", "rotary_base", "use_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
