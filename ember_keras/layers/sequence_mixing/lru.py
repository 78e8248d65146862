"""The linear recurrent unit."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.linear_recurrence import linear_recurrence


@registry.sequence_mixers.register("lru")
class LRU(SequenceMixer):
    """The linear recurrent unit: complex decays that do not depend on the input.

    For long signals with rhythms; it is linear in its input, so it wants a gated channel mixer
    behind it. For what must be chosen by content, see `mamba` or `rg_lru`.

    `h_t = lambda * h_{t-1} + gamma * (B x_t)`, `y_t = Re(C h_t) + D * x_t`, with
    `lambda = exp(-exp(nu) + i exp(theta))` and `gamma = sqrt(1 - |lambda|^2)` at the start
    (Orvieto et al. 2023, arXiv 2303.06349, equation 5 and section 3). The decays start uniform in
    area on a ring.

    Args:
        state_dim: int or None. N, the complex numbers of the state; D when None.
        min_radius: float in [0, 1). The ring's inner radius.
        max_radius: float in (min_radius, 1). Its outer radius.
        max_phase: float in (0, 2 pi]. The greatest angle at the start; a small one helps memories
            of thousands of positions.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.LRU(state_dim=32, min_radius=0.9)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        state_dim: int | None = None,
        min_radius: float = 0.4,
        max_radius: float = 0.99,
        max_phase: float = 2 * math.pi,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if state_dim is not None and state_dim < 1:
            raise ValueError(f"`LRU` received state_dim={state_dim}, expected at least 1, or None.")
        if not 0 <= min_radius < max_radius < 1:
            raise ValueError(
                f"`LRU` received min_radius={min_radius} and max_radius={max_radius}, expected "
                "0 <= min_radius < max_radius < 1, so that the state decays."
            )
        if not 0 < max_phase <= 2 * math.pi + 1e-6:
            raise ValueError(
                f"`LRU` received max_phase={max_phase}, expected an angle in (0, 2 pi]."
            )
        self.state_dim = state_dim
        self.min_radius = min_radius
        self.max_radius = max_radius
        self.max_phase = max_phase

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.states = states = self.state_dim or width

        def dense(units: int, name: str, stddev: float) -> Projection:
            return Projection(
                units,
                use_bias=False,
                kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
                dtype=self.dtype_policy,
                name=name,
            )

        # The real and the imaginary parts of B and C stand side by side.
        self.input_projection = dense(2 * states, "input_projection", (2 * width) ** -0.5)
        self.output_projection = dense(width, "output_projection", states**-0.5)
        self.input_projection.build(input_shape)
        self.output_projection.build((*input_shape[:-1], 2 * states))
        self.log_decay = self.add_wide_weight((states,), self._ring, "log_decay")
        self.log_angle = self.add_wide_weight((states,), self._angles, "log_angle")
        radius = ops.exp(-ops.exp(wide(self.log_decay)))
        gamma = 0.5 * ops.log(1.0 - radius * radius)
        self.log_gain = self.add_wide_weight((states,), lambda *_, **__: gamma, "log_gain")
        self.skip = self.add_weight(
            (width,), keras.initializers.RandomNormal(stddev=1.0), name="skip"
        )
        super().build(input_shape)

    def _ring(self, shape: Any, dtype: Any) -> Any:
        area = keras.initializers.RandomUniform(self.min_radius**2 + 1e-8, self.max_radius**2)
        square = area(shape, "float32")
        return ops.cast(ops.log(-0.5 * ops.log(square)), dtype)

    def _angles(self, shape: Any, dtype: Any) -> Any:
        phases = keras.initializers.RandomUniform(1e-4 * self.max_phase, self.max_phase)
        angle = phases(shape, "float32")
        return ops.cast(ops.log(angle), dtype)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        gain = ops.exp(wide(self.log_gain))
        b = [wide(part) * gain for part in ops.split(self.input_projection(x), 2, axis=-1)]
        h, state = linear_recurrence(
            (-ops.exp(wide(self.log_decay)), ops.exp(wide(self.log_angle))),
            b,
            log_space=True,
            initial_state=state,
            return_state=True,
            mask=mask,
            segment_ids=segment_ids,
        )
        h = ops.cast(ops.concatenate(h, axis=-1), x.dtype)
        # Re(C h) = Re(C) Re(h) - Im(C) Im(h); the weights hold -Im(C).
        return self.output_projection(h) + ops.cast(self.skip, x.dtype) * x, list(state)

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return [ops.zeros((batch_size, self.states), self.log_decay.dtype) for _ in range(2)]

    def get_config(self) -> dict[str, Any]:
        names = ("state_dim", "min_radius", "max_radius", "max_phase")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
