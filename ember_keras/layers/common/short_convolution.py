"""A short causal convolution along time, one filter a channel."""

from __future__ import annotations

from typing import Any

import keras

from ember_keras.layers.base import EmberLayer, State
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state


class ShortConvolution(EmberLayer):
    """A depthwise causal convolution of a few taps: `y_t = sum_s k_s x_{t-s} + b`.

    Most recurrent mixers look at the last few positions through one before their engine.

    Args:
        taps: int >= 1. How many positions an output sees, itself included.
        use_bias: bool. Whether `b` is there.
        causal: bool. False centres the taps on the position; there is then no state.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, D)`.
        state: what an earlier call returned, or None.
        mask: bool tensor `(B, T)`, True at real positions.
        segment_ids: int tensor `(B, T)`.
        return_state: bool. Gives `(y, state)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    from ember_keras.layers.common import ShortConvolution

    y = ShortConvolution(taps=4)(np.ones((2, 5, 8), "float32"))
    print(y.shape)  # (2, 5, 8)
    ```
    """

    def __init__(self, taps: int = 3, use_bias: bool = False, causal: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        if taps < 1:
            raise ValueError(f"`ShortConvolution` received taps={taps}, expected at least 1.")
        self.taps = taps
        self.use_bias = use_bias
        self.causal = causal
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.width = input_shape[-1]
        limit = (1 / self.taps) ** 0.5
        self.kernel = self.add_weight(
            shape=(self.taps, self.width),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.width,), initializer="zeros", name="bias")
        super().build(input_shape)

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        return_state: bool = False,
    ) -> Any:
        if state is None and return_state:
            state = self.initial_state(keras.ops.shape(x)[0])
        y = fft_conv(
            x,
            self.kernel,
            causal=self.causal,
            initial_state=state,
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )
        y, state = y if return_state else (y, None)
        if self.use_bias:
            y = y + self.bias
        return (y, state) if return_state else y

    def mix(self, x: Any, state: State | None, **options: Any) -> tuple[Any, State | None]:
        """The output, and the state, which is None where `return_state` is not among the options.

        Args:
            x: float tensor `(B, T, D)`.
            state: what an earlier call returned, or None.
            **options: `mask`, `segment_ids` and `return_state`.
        """
        y = self(x, state=state, **options)
        return y if options.get("return_state") else (y, None)

    def initial_state(self, batch_size: int) -> State:
        return fft_conv_state(batch_size, self.width, taps=self.taps, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "taps": self.taps,
            "use_bias": self.use_bias,
            "causal": self.causal,
        }
