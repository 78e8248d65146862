"""Mamba's selective state space."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.linear_recurrence import selective_scan


@registry.sequence_mixers.register("mamba")
class Mamba(SequenceMixer):
    """Mamba: a state space whose step sizes, inputs and outputs are chosen by the sequence.

    A strong mixer of language, audio and genomes at a cost that is linear in the length, with a
    state of constant size; a few attention layers beside it help it recall exactly.

    `x, z = W_in u`; x goes through a short convolution and silu; `dt_r, B, C = W_x x`,
    `dt = softplus(W_dt dt_r + b_dt)`; `h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t` with
    `A = -exp(log_rate)`, `y_t = h_t C_t + D x_t`; the output is `W_out (y silu(z))`
    (Gu and Dao 2023, arXiv 2312.00752, section 3 and algorithm 2). With `norm_epsilon`, `dt_r`, B
    and C are scaled to a root mean square of 1 and, with `norm_scale`, by weights (Lieber et al.
    2024, Jamba, arXiv 2403.19887; Falcon Mamba, arXiv 2410.05355, without weights).

    Args:
        expansion: int >= 1. The inner width is `expansion` D.
        state_dim: int >= 1. K, the state's numbers a channel.
        dt_rank: int or None. The rank of the step sizes; D / 16 rounded up when None.
        short_taps: int >= 1. The taps of the short convolution.
        conv_bias: bool. Whether the short convolution has a bias.
        use_bias: bool. Whether the maps in and out have biases.
        norm_epsilon: float > 0 or None. Norms `dt_r`, B and C; None does not.
        norm_scale: bool. Whether these norms have weights.
        min_step: float > 0. The shortest step size at the start of training.
        max_step: float >= min_step. The longest.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Mamba(state_dim=8)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    def __init__(
        self,
        expansion: int = 2,
        state_dim: int = 16,
        dt_rank: int | None = None,
        short_taps: int = 4,
        conv_bias: bool = True,
        use_bias: bool = False,
        norm_epsilon: float | None = None,
        norm_scale: bool = True,
        min_step: float = 0.001,
        max_step: float = 0.1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("expansion", expansion), ("state_dim", state_dim)):
            if value < 1:
                raise ValueError(f"`Mamba` received {name}={value}, expected at least 1.")
        if dt_rank is not None and dt_rank < 1:
            raise ValueError(f"`Mamba` received dt_rank={dt_rank}, expected at least 1, or None.")
        if norm_epsilon is not None and norm_epsilon <= 0:
            raise ValueError(
                f"`Mamba` received norm_epsilon={norm_epsilon}, expected more than 0, or None for "
                "no norms."
            )
        if not 0 < min_step <= max_step:
            raise ValueError(
                f"`Mamba` received min_step={min_step} and max_step={max_step}, expected positive "
                "numbers of which the second is not the smaller."
            )
        self.expansion = expansion
        self.state_dim = state_dim
        self.dt_rank = dt_rank
        self.short_taps = short_taps
        self.conv_bias = conv_bias
        self.use_bias = use_bias
        self.norm_epsilon = norm_epsilon
        self.norm_scale = norm_scale
        self.min_step = min_step
        self.max_step = max_step
        self.short_convolution = ShortConvolution(
            short_taps, conv_bias, dtype=self.dtype_policy, name="short_convolution"
        )

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self.inner = inner = self.expansion * width
        rank = self.dt_rank or -(-width // 16)
        self.sizes = (rank, self.state_dim, self.state_dim)

        def dense(units: int, name: str, use_bias: bool, **options: Any) -> Projection:
            return Projection(
                units, use_bias=use_bias, name=name, dtype=self.dtype_policy, **options
            )

        self.input_projection = dense(2 * inner, "input_projection", self.use_bias)
        self.selection = dense(sum(self.sizes), "selection", False)
        limit = rank**-0.5
        self.step_projection = dense(
            inner,
            "step_projection",
            False,
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        )
        self.output_projection = dense(width, "output_projection", self.use_bias)
        self.input_projection.build(input_shape)
        self.short_convolution.build((*input_shape[:-1], inner))
        self.selection.build((*input_shape[:-1], inner))
        self.step_projection.build((*input_shape[:-1], rank))
        self.output_projection.build((*input_shape[:-1], inner))
        self.log_step_bias = self.add_wide_weight((inner,), self._step_bias, "log_step_bias")
        rates = np.log(np.arange(1, self.state_dim + 1))
        self.log_rate = self.add_wide_weight(
            (inner, self.state_dim),
            lambda shape, dtype: ops.cast(np.broadcast_to(rates, shape), dtype),
            "log_rate",
        )
        self.skip = self._weight("skip", (inner,), "ones")
        self.scales = None
        if self.norm_epsilon is not None and self.norm_scale:
            names = ("step_scale", "input_scale", "output_scale")
            self.scales = [
                self._weight(name, (size,), "ones")
                for name, size in zip(names, self.sizes, strict=True)
            ]
        super().build(input_shape)

    def _weight(self, name: str, shape: tuple[int, ...], initializer: Any) -> Any:
        return self.add_weight(shape, initializer, name=name, autocast=False)

    def _step_bias(self, shape: Any, dtype: Any) -> Any:
        """What softplus makes step sizes of, whose logarithms are uniform."""
        low, high = math.log(self.min_step), math.log(self.max_step)
        step = ops.exp(keras.initializers.RandomUniform(low, high)(shape, "float32"))
        return ops.cast(step + ops.log(-ops.expm1(-step)), dtype)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        options = {"mask": mask, "segment_ids": segment_ids, "return_state": return_state}
        before = state or {"short": None, "scan": None}
        x, z = ops.split(self.input_projection(x), 2, axis=-1)
        x = self.short_convolution(x, state=before["short"], **options)
        x, short = x if return_state else (x, None)
        x = ops.silu(x)
        rank, state_dim, _ = self.sizes
        step, b, c = ops.split(self.selection(x), (rank, rank + state_dim), axis=-1)
        if self.norm_epsilon is not None:
            step, b, c = (self._norm(part, at) for at, part in enumerate((step, b, c)))
        delta = ops.softplus(wide(self.step_projection(step)) + wide(self.log_step_bias))
        rates = -ops.exp(wide(self.log_rate))
        y = selective_scan(
            x, delta, rates, b, c, self.skip, initial_state=before["scan"], **options
        )
        y, scan = y if return_state else (y, None)
        return self.output_projection(y * ops.silu(z)), {"short": short, "scan": scan}

    def _norm(self, x: Any, at: int) -> Any:
        y = wide(x)
        y = y * ops.rsqrt(ops.mean(y * y, axis=-1, keepdims=True) + self.norm_epsilon)
        if self.scales is not None:
            y = y * wide(self.scales[at])
        return ops.cast(y, x.dtype)

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "scan": ops.zeros((batch_size, self.inner, self.state_dim), self.log_rate.dtype),
        }

    def get_config(self) -> dict[str, Any]:
        names = (
            "expansion", "state_dim", "dt_rank", "short_taps", "conv_bias", "use_bias",
            "norm_epsilon", "norm_scale", "min_step", "max_step",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
