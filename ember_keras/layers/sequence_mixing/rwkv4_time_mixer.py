"""The time mixer of RWKV-4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.token_shift import TokenShift
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.rwkv_time_mixing import rising
from ember_keras.ops.engines.linear_recurrence import wkv
from ember_keras.ops.engines.running_max import EMPTY


@registry.sequence_mixers.register("rwkv4_time_mixer")
class RWKV4TimeMixer(SequenceMixer):
    """The time mixer of RWKV-4 (Dove): an average of all values, with weights that fade.

    The smallest state of the RWKVs: two sums a channel, no matrix. It is the layer of the published
    RWKV-4 models; in a new model a later generation learns more. It belongs beside
    `rwkv4_channel_mixer`.

    `r, k, v = (mu x_t + (1 - mu) x_{t-1}) W`, each with a mu and a W of its own;
    `o_t = (a_{t-1} + e^{u + k_t} v_t) / (b_{t-1} + e^{u + k_t})` with `w = exp(omega)`,
    `a_t = e^{-w} a_{t-1} + e^{k_t} v_t` and `b_t = e^{-w} b_{t-1} + e^{k_t}`; and
    `y_t = W_o (sigmoid(r_t) * o_t)` (Peng et al. 2023, arXiv 2305.13048, equations 11 to 13, 16 and
    17). The mixes, decays and bonuses start as those of the authors' first layer.

    Args:
        inner_dim: int or None. The width of r, k and v; D when None.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV4TimeMixer()
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _shares = {"receptance": 0.5, "key": 1.0, "value": 1.0}

    def __init__(self, inner_dim: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, inner_dim=inner_dim)
        self.inner_dim = inner_dim
        self.shift = TokenShift(dtype=self.dtype_policy, name="shift")

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._inner = inner = self.inner_dim or width
        self.shift.build(input_shape)
        self.mu_receptance, self.mu_key, self.mu_value = (
            self.add_weight((width,), share_of_present(power), name=f"mu_{name}")
            for name, power in self._shares.items()
        )
        self.log_rate = self.add_wide_weight((inner,), rising(-5.0, 3.0, 0.7), "log_rate")
        self.bonus = self.add_wide_weight((inner,), _bonus, "bonus")
        self.receptance = heads.dense(self, inner, "receptance", width)
        self.key = heads.dense(self, inner, "key", width)
        self.value = heads.dense(self, inner, "value", width)
        self.output_projection = heads.dense(self, width, "output_projection", inner)
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
        options = {"mask": mask, "segment_ids": segment_ids, "return_state": True}
        before = state or {"shift": None, "average": None}
        previous, shift = self.shift(x, state=before["shift"], **options)
        change = x - previous
        y, average = wkv(
            wide(self.key(previous + change * self.mu_key)),
            wide(self.value(previous + change * self.mu_value)),
            -ops.exp(wide(self.log_rate)),
            wide(self.bonus),
            initial_state=before["average"],
            **options,
        )
        gate = ops.sigmoid(self.receptance(previous + change * self.mu_receptance))
        y = self.output_projection(gate * ops.cast(y, self.compute_dtype))
        return y, {"shift": shift, "average": average}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape, dtype = (batch_size, self._inner), heads.state_dtype(self)
        average = {name: ops.zeros(shape, dtype) for name in ("numerator", "denominator")}
        return {
            "shift": self.shift.initial_state(batch_size),
            "average": {**average, "log_scale": ops.full(shape, EMPTY, dtype)},
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "inner_dim": self.inner_dim}


def share_of_present(power: float) -> Callable[..., Any]:
    """An initializer `(i / D)^power`: 0, the position before alone, at the first channel."""

    def start(shape: Any, dtype: Any = None) -> Any:
        place = ops.arange(shape[0], dtype="float32") / shape[0]
        return ops.cast(place**power, dtype or "float32")

    return start


def _bonus(shape: Any, dtype: Any = None) -> Any:
    """The log of 0.3, half a unit up or down or neither, in turns along the channels."""
    turns = (np.arange(1, shape[0] + 1) % 3 - 1) * 0.5
    return ops.cast(np.log(0.3) + turns, dtype or "float32")
