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
        num_filters: int or None. Filters, each with its skip weight, that D / `num_filters`
            neighbouring channels share; None is one a channel.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, D)`.
        state: what an earlier call returned, or None.
        mask: bool tensor `(B, T)`, True at real positions.
        segment_ids: int tensor `(B, T)`.
        return_state: bool. Gives `(y, state)`.
        taps: what `fresh_taps` returned for this length without a state, or None.
        gate_in: float tensor `(B, T, D)` that multiplies `x`, or None.
        gate_out: float tensor `(B, T, D)` that multiplies the output, or None.

    Output shape: that of `x`.
    """

    def __init__(
        self,
        filter: Annotated[Any, Component("filters")] = "implicit",
        causal: bool = True,
        num_filters: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_filters = num_filters
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
        filters = self.num_filters or self.width
        self.filter.build((filters,))
        if self.ahead is not None:
            self.ahead.build((filters,))
        self.skip = self.add_weight(
            (filters,), keras.initializers.RandomNormal(stddev=1.0), name="skip"
        )
        super().build(input_shape)

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        return_state: bool = False,
        taps: Any = None,
        gate_in: Any = None,
        gate_out: Any = None,
    ) -> Any:
        if state is None and return_state and self.filter.size is not None:
            state = self.initial_state(keras.ops.shape(x)[0], None)
        # After a state that holds the taps one position needs no others.
        if state is not None and "taps" in state and x.shape[1] == 1:
            k = None
        elif taps is not None:
            k = taps
        else:
            k = self._taps(taps_needed(x.shape[1], state, taps=self.filter.size))
        return fft_conv(
            x,
            k,
            keras.ops.convert_to_tensor(self.skip),
            gate_in=gate_in,
            gate_out=gate_out,
            causal=self.causal,
            initial_state=state,
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )

    def fresh_taps(self, length: int) -> Any:
        """The taps for a sequence of `length` positions from its start, which all rows share."""
        return self._taps(taps_needed(length, taps=self.filter.size))

    def _taps(self, length: int) -> Any:
        """The taps `(length, filters)`, with those that look ahead where there are any."""
        k = self.filter.taps(length)
        if self.ahead is not None:
            # Tap 0 belongs to both; the centre of the joined filter is the position itself.
            ahead = self.ahead.taps(length)
            k = keras.ops.concatenate([keras.ops.flip(ahead[1:], axis=0), k], axis=0)
        return k

    def initial_state(self, batch_size: int, max_length: int | None) -> State:
        size = self.filter.size
        if size is not None:
            return fft_conv_state(batch_size, self.width, taps=size, dtype=self.compute_dtype)
        k = None if max_length is None else self._taps(max_length)
        return fft_conv_state(
            batch_size, self.width, max_length=max_length, dtype=self.compute_dtype, k=k
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filter": registry.part_config(self.filter, ("filters",)),
            "causal": self.causal,
            "num_filters": self.num_filters,
        }


def convolve_products(convolution: Any, q: Any, k: Any, v: Any, heads: int, **options: Any) -> Any:
    """`o_t = (filter * k v^T)_t^T q_t`, a head at a time: what `LongConvolution` makes of products.

    With heads of width N it convolves D N channels, and its state holds as many. There is no way
    around them: a filter that is no sum of exponentials has no smaller state.

    Args:
        convolution: `LongConvolution` over D N channels with a filter a head.
        q: tensor `(B, T, D)`; k and v alike.
        k: the keys.
        v: the values.
        heads: int. H, which divides D into heads of width N.
        **options: of the convolution's call; with `return_state=True` the result is `(o, state)`.

    Returns:
        `(B, T, D)`.
    """
    batch, time, width = keras.ops.shape(q)[0], q.shape[1], q.shape[2]
    time = keras.ops.shape(q)[1] if time is None else time
    size = width // heads
    keys = keras.ops.reshape(k, (batch, time, heads, size, 1))
    values = keras.ops.reshape(v, (batch, time, heads, 1, size))
    products = keras.ops.reshape(keys * values, (batch, time, width * size))
    y = convolution(products, **options)
    y, state = y if options.get("return_state") else (y, None)
    y = keras.ops.reshape(y, (batch, time, heads, size, size))
    o = keras.ops.sum(keras.ops.reshape(q, (batch, time, heads, size, 1)) * y, axis=3)
    o = keras.ops.reshape(o, (batch, time, width))
    return (o, state) if options.get("return_state") else o
