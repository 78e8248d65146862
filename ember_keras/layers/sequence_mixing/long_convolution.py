"""What the mixers over the `fft_conv` engine share: a filter, its skip weight, and their state."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import EmberLayer, State
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state, taps_needed


def build_filter(filter: Any, policy: Any) -> Any:
    """A filter from its name, configuration or layer.

    Its weights are float32 or wider: a pole or a frequency that is rounded to half precision is
    another filter.
    """
    dtype = "float64" if policy.variable_dtype == "float64" else "float32"
    return registry.build_part(filter, ("filters",), dtype, "filter")


class LongConvolution(EmberLayer):
    """One long convolution with its own filter: `y = k * x + d x`, a channel at a time.

    Args:
        filter: a name, configuration or layer of `registry.filters`.
        causal: bool. False adds a second filter that looks ahead; there is then no state.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, D)`.
        state: what an earlier call returned, or None.
        mask: bool tensor `(B, T)`, True at real positions.
        segment_ids: int tensor `(B, T)`.
        return_state: bool. Gives `(y, state)`.

    Output shape: that of `x`.
    """

    def __init__(
        self,
        filter: Annotated[Any, Component("filters")] = "implicit",
        causal: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filter = build_filter(filter, self.dtype_policy)
        self.causal = causal
        # Looking ahead has a filter of its own, of the same make.
        self.ahead = None
        if not causal:
            config = registry.to_config(self.filter, ("filters",))
            self.ahead = build_filter(config, self.dtype_policy)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.width = input_shape[-1]
        self.filter.build((self.width,))
        if self.ahead is not None:
            self.ahead.build((self.width,))
        self.skip = self.add_weight(
            (self.width,), keras.initializers.RandomNormal(stddev=1.0), name="skip"
        )
        super().build(input_shape)

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        return_state: bool = False,
    ) -> Any:
        if state is None and return_state and self.filter.size is not None:
            state = self.initial_state(keras.ops.shape(x)[0], None)
        length = taps_needed(x.shape[1], state, taps=self.filter.size)
        k = self.filter.taps(length)
        if self.ahead is not None:
            # Tap 0 belongs to both; the centre of the joined filter is the position itself.
            ahead = self.ahead.taps(length)
            k = keras.ops.concatenate([keras.ops.flip(ahead[1:], axis=0), k], axis=0)
        return fft_conv(
            x,
            k,
            self.skip,
            causal=self.causal,
            initial_state=state,
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )

    def initial_state(self, batch_size: int, max_length: int | None) -> State:
        size = self.filter.size
        if size is not None:
            return fft_conv_state(batch_size, self.width, taps=size, dtype=self.compute_dtype)
        return fft_conv_state(
            batch_size, self.width, max_length=max_length, dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filter": registry.part_config(self.filter, ("filters",)),
            "causal": self.causal,
        }
