"""A long convolution with a gate."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.long_convolution import LongConvolution


@registry.sequence_mixers.register("fft_conv")
class FFTConv(SequenceMixer):
    """A gated long convolution: linear maps around one filter as long as the sequence.

    It mixes along all of time at a cost of T log T, with weights that do not depend on the input;
    for signals, and as the plain relative of `Hyena`.

    `y = W_o (silu(W_g x) * (k * W_i x + d W_i x))`, where `k *` is a convolution along time; the
    gate is that of the gated state spaces (Mehta et al. 2022, arXiv 2206.13947, equation 3.1). The
    filter decides the rest: `explicit`, `implicit` (Poli et al. 2023, arXiv 2302.10866) or
    `s4d` (Gu et al. 2022, arXiv 2206.11893).

    Args:
        filter: a name, configuration or layer of `registry.filters`.
        causal: bool. False joins a second filter that looks ahead; it then has no state and no
            `step`.
        gate: bool. Whether the gate `silu(W_g x)` is there.
        use_bias: bool. Whether the linear maps have biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.FFTConv(filter={"type": "s4d", "state_dim": 8})
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        filter: Annotated[Any, Component("filters")] = "implicit",
        causal: bool = True,
        gate: bool = True,
        use_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.causal = causal
        self.gate = gate
        self.use_bias = use_bias
        self.convolution = LongConvolution(
            filter, causal, dtype=self.dtype_policy, name="convolution"
        )

    @property
    def filter(self) -> Any:
        """The filter that looks back."""
        return self.convolution.filter

    @property
    def is_causal(self) -> bool:
        return self.causal

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.input_projection = Projection(
            2 * width if self.gate else width, name="input_projection", **options
        )
        self.output_projection = Projection(width, name="output_projection", **options)
        for layer in (self.input_projection, self.convolution, self.output_projection):
            layer.build(input_shape)
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
        u, gate = self.input_projection(x), None
        if self.gate:
            u, gate = keras.ops.split(u, 2, axis=-1)
        y = self.convolution(
            u,
            state=state,
            mask=mask,
            segment_ids=segment_ids,
            return_state=return_state,
            taps=taps,
            gate_out=None if gate is None else keras.ops.silu(gate),
        )
        y, state = y if return_state else (y, None)
        return self.output_projection(y), state

    def common(self, time: int) -> dict[str, Any]:
        return {"taps": self.convolution.fresh_taps(time)}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return self.convolution.initial_state(batch_size, max_length)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filter": registry.part_config(self.filter, ("filters",)),
            "causal": self.causal,
            "gate": self.gate,
            "use_bias": self.use_bias,
        }
