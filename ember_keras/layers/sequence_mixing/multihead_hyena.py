"""The Hyena operator with heads of outer products."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.long_convolution import LongConvolution, convolve_products


@registry.sequence_mixers.register("multihead_hyena")
class MultiheadHyena(SequenceMixer):
    """The Hyena operator with heads: a long convolution of outer products of keys and values.

    It recalls by content better than `Hyena` of the same width, with a filter a head in place of
    one a channel. Heads of width N convolve D N channels, and the state holds as many: N times
    those of `Hyena`, so keep N = D / H small.

    With projections q, k, v of the input, each through a short convolution, and a filter h_m a
    head, `o_t = (h_m * k v^T + d_m k v^T)_t^T q_t` with `k_t v_t^T` of shape (N, N), and
    `y = W o` (Massaroli et al. 2023, MultiHyena, arXiv 2310.18780, section 4). Heads of width 1 are
    `Hyena` of order 2.

    Args:
        num_heads: int >= 1. H, which divides the model width.
        short_taps: int >= 1. The taps of the short convolution over the projections.
        filter: a name, configuration or layer of `registry.filters`, for the long convolution.
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

    mixer = ek.layers.MultiheadHyena(num_heads=4)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        num_heads: int = 8,
        short_taps: int = 3,
        filter: Annotated[Any, Component("filters")] = "implicit",
        use_bias: bool = True,
        causal: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(
                f"`MultiheadHyena` received num_heads={num_heads}, expected at least 1."
            )
        self.num_heads = num_heads
        self.short_taps = short_taps
        self.use_bias = use_bias
        self.causal = causal
        self.short_convolution = ShortConvolution(
            short_taps, use_bias, causal, dtype=self.dtype_policy, name="short_convolution"
        )
        self.convolution = LongConvolution(
            filter, causal, num_heads, dtype=self.dtype_policy, name="convolution"
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
        if width % self.num_heads:
            raise ValueError(
                f"`MultiheadHyena` received an input of width {width}, which its "
                f"{self.num_heads} heads do not divide. Choose another num_heads."
            )
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.input_projection = Projection(3 * width, name="input_projection", **options)
        self.output_projection = Projection(width, name="output_projection", **options)
        self.input_projection.build(input_shape)
        self.short_convolution.build((*input_shape[:-1], 3 * width))
        self.convolution.build((*input_shape[:-1], width * (width // self.num_heads)))
        self.output_projection.build(input_shape)
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
        before = state or {"short": None, "long": None}
        projected = self.short_convolution(
            self.input_projection(x), state=before["short"], **options
        )
        projected, short = projected if return_state else (projected, None)
        q, k, v = keras.ops.split(projected, 3, axis=-1)
        options |= {"state": before["long"], "taps": taps}
        o = convolve_products(self.convolution, q, k, v, self.num_heads, **options)
        o, long = o if return_state else (o, None)
        return self.output_projection(o), {"short": short, "long": long}

    def common(self, time: int) -> dict[str, Any]:
        return {"taps": self.convolution.fresh_taps(time)}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "long": self.convolution.initial_state(batch_size, max_length),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "short_taps": self.short_taps,
            "filter": registry.part_config(self.filter, ("filters",)),
            "use_bias": self.use_bias,
            "causal": self.causal,
        }
