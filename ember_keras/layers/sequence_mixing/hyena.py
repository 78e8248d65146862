"""The Hyena operator."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.long_convolution import LongConvolution, build_filter


@registry.sequence_mixers.register("hyena")
class Hyena(SequenceMixer):
    """The Hyena operator: long convolutions and gates by turns, both drawn from the input.

    It stands where attention stands, at a cost of T log T; it recalls less exactly, so a few
    attention layers among many Hyena layers are a good mix.

    With projections `(v, x_1 .. x_N)` of the input, each through a short convolution,
    `z_1 = v`, `z_{n+1} = x_n * (k_n * z_n + d_n z_n)`, `y = W z_{N+1}`
    (Poli et al. 2023, arXiv 2302.10866, definition 3.1). As in the authors' published models,
    order N has N - 1 long convolutions: the first gate stands before any. The default filter learns
    the rates of its window, which falls to 0; theirs has fixed rates and may add a constant.

    Args:
        order: int >= 2. N, the number of gates.
        short_taps: int >= 1. The taps of the short convolution over the projections.
        filter: a name, configuration or layer of `registry.filters`, for the long convolutions; it
            is built anew for each.
        use_bias: bool. Whether the two linear maps have biases.
        causal: bool. False centres the short convolution and joins filters that look ahead; it then
            has no state and no `step`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Hyena(order=3)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        order: int = 2,
        short_taps: int = 3,
        filter: Annotated[Any, Component("filters")] = "implicit",
        use_bias: bool = True,
        causal: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if order < 2:
            raise ValueError(
                f"`{type(self).__name__}` received order={order}, expected at least 2."
            )
        self.order = order
        self.short_taps = short_taps
        self.use_bias = use_bias
        self.causal = causal
        self.short_convolution = ShortConvolution(
            short_taps, use_bias, causal, dtype=self.dtype_policy, name="short_convolution"
        )
        filter = build_filter(filter, self.dtype_policy)
        config = registry.part_config(filter, ("filters",))
        self.convolutions = [
            LongConvolution(
                config if i else filter, causal, dtype=self.dtype_policy, name=f"convolution_{i}"
            )
            for i in range(order - 1)
        ]

    @property
    def filter(self) -> Any:
        """The filter of the first long convolution; the others are of the same make."""
        return self.convolutions[0].filter

    @property
    def is_causal(self) -> bool:
        return self.causal

    def _widths(self, width: int) -> tuple[int, int]:
        """The channels of the operator, and those that its output map reads."""
        return width, width

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        inner, outer = self._widths(width)
        wide = (self.order + 1) * inner
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.input_projection = Projection(wide, name="input_projection", **options)
        self.output_projection = Projection(width, name="output_projection", **options)
        self.input_projection.build(input_shape)
        self.short_convolution.build((*input_shape[:-1], wide))
        for convolution in self.convolutions:
            convolution.build((*input_shape[:-1], inner))
        self.output_projection.build((*input_shape[:-1], outer))
        super().build(input_shape)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
        taps: Any = None,
    ) -> tuple[Any, State | None]:
        options = {"mask": mask, "segment_ids": segment_ids, "return_state": return_state}

        def run(layer: Any, x: Any, state: State | None, **more: Any) -> tuple[Any, State | None]:
            y = layer(x, state=state, **options, **more)
            return y if return_state else (y, None)

        before = state or {"short": None, "long": [None] * len(self.convolutions)}
        projected, short = run(self.short_convolution, self.input_projection(x), before["short"])
        first, *gates, z = keras.ops.split(projected, self.order + 1, axis=-1)
        long, taps = [], taps or [None] * len(self.convolutions)
        rounds = zip(gates, self.convolutions, before["long"], taps, strict=True)
        for gate, convolution, past, k in rounds:
            z, past = run(convolution, z, past, taps=k, gate_in=first, gate_out=gate)
            first = None
            long.append(past)
        return self.output_projection(self._joined(z, x)), {"short": short, "long": long}

    def _joined(self, z: Any, x: Any) -> Any:
        """What the output map reads of the operator's result `z` and the input `x`."""
        return z

    def common(self, time: int) -> dict[str, Any]:
        return {"taps": [convolution.fresh_taps(time) for convolution in self.convolutions]}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "long": [c.initial_state(batch_size, max_length) for c in self.convolutions],
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "order": self.order,
            "short_taps": self.short_taps,
            "filter": registry.part_config(self.filter, ("filters",)),
            "use_bias": self.use_bias,
            "causal": self.causal,
        }
