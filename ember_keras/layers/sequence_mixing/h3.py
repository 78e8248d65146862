"""Hungry Hungry Hippos."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.long_convolution import (
    LongConvolution,
    build_filter,
    convolve_products,
)


@registry.sequence_mixers.register("h3")
class H3(SequenceMixer):
    """Hungry Hungry Hippos: a shift and a diagonal state-space model with gates between them.

    The shift remembers the last positions as they are, the diagonal model what they were paired
    with, and the query asks for it: it recalls where a lone state-space model does not. For text,
    with a few attention layers beside it.

    `y = W (q . diag(shift(k) v^T))`, a head at a time, where `shift` is the shift state-space
    model, whose impulse response is its `shift_taps` output weights, and `diag` a diagonal one, a
    filter a head; both have a skip weight (Fu et al. 2022, arXiv 2212.14052, section 3.1 and
    algorithm 1). Heads of width N convolve D N channels; the default is 1, an elementwise product.

    Args:
        head_dim: int >= 1. N, the width of a head, which divides the model width.
        shift_taps: int >= 1. The states of the shift model: how many positions it remembers.
        filter: a name, configuration or layer of `registry.filters`, for the second model.
        use_bias: bool. Whether the linear maps have biases.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.H3(shift_taps=16)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        head_dim: int = 1,
        shift_taps: int = 64,
        filter: Annotated[Any, Component("filters")] = "s4d",
        use_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("head_dim", head_dim), ("shift_taps", shift_taps)):
            if value < 1:
                raise ValueError(f"`H3` received {name}={value}, expected at least 1.")
        self.head_dim = head_dim
        self.shift_taps = shift_taps
        self.use_bias = use_bias
        self.shift = LongConvolution(
            {"type": "explicit", "num_taps": shift_taps}, dtype=self.dtype_policy, name="shift"
        )
        self.filter = build_filter(filter, self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        if width % self.head_dim:
            raise ValueError(
                f"`H3` received an input of width {width}, which its heads do not divide: "
                f"head_dim={self.head_dim}. Choose another head_dim."
            )
        self._heads = width // self.head_dim
        self.convolution = LongConvolution(
            self.filter, num_filters=self._heads, dtype=self.dtype_policy, name="convolution"
        )
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.input_projection = Projection(3 * width, name="input_projection", **options)
        self.output_projection = Projection(width, name="output_projection", **options)
        for layer in (self.input_projection, self.shift, self.output_projection):
            layer.build(input_shape)
        self.convolution.build((*input_shape[:-1], width * self.head_dim))
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
        before = state or {"shift": None, "long": None}
        q, k, v = keras.ops.split(self.input_projection(x), 3, axis=-1)
        k = self.shift(k, state=before["shift"], **options)
        k, shift = k if return_state else (k, None)
        options |= {"state": before["long"], "taps": taps}
        o = convolve_products(self.convolution, q, k, v, self._heads, **options)
        o, long = o if return_state else (o, None)
        return self.output_projection(o), {"shift": shift, "long": long}

    def common(self, time: int) -> dict[str, Any]:
        return {"taps": self.convolution.fresh_taps(time)}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {
            "shift": self.shift.initial_state(batch_size, None),
            "long": self.convolution.initial_state(batch_size, max_length),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "shift_taps": self.shift_taps,
            "filter": registry.part_config(self.filter, ("filters",)),
            "use_bias": self.use_bias,
        }
