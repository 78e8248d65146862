"""The scalar LSTM of xLSTM."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide, wide_dtype
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.nonlinear_scan import nonlinear_scan

EMPTY = -1e30
"""The stabiliser of a state that holds nothing yet, in place of minus infinity."""


@dataclasses.dataclass(frozen=True)
class SLSTMCell:
    """One position: what the input adds to the gates `(B, H, 4 K)`, the state, the weights."""

    def __call__(self, x: Any, state: State, weights: Any) -> tuple[Any, State]:
        hidden = ops.swapaxes(state["hidden"], 0, 1)
        gates = x + ops.swapaxes(ops.matmul(hidden, weights), 0, 1)
        i, f, z, o = ops.split(gates, 4, axis=-1)
        kept = state["stabiliser"] + ops.log_sigmoid(f)
        top = ops.maximum(i, kept)
        add, keep = ops.exp(i - top), ops.exp(kept - top)
        cell = keep * state["cell"] + add * ops.tanh(z)
        normaliser = keep * state["normaliser"] + add
        hidden = ops.sigmoid(o) * cell / normaliser
        return hidden, {
            "cell": cell,
            "hidden": hidden,
            "normaliser": normaliser,
            "stabiliser": top,
        }


@registry.sequence_mixers.register("slstm")
class SLSTM(SequenceMixer):
    """The scalar LSTM of xLSTM: exponential gates, a normaliser, and heads.

    An LSTM that can revise what it stored: an exponential input gate outweighs all that came
    before. It keeps the nonlinear loop, so it tracks states that linear recurrences cannot; one
    such layer among many matrix-valued ones is the paper's mix. Its state is 4 D numbers, and D for
    each tap of the short convolution but one: 7 D with 4 taps.

    With gates `i, f, z, o = W x_t + R h_{t-1} + b`, block-diagonal in the heads, where `i` and `f`
    see the input through a short convolution and SiLU: `m_t = max(log sigmoid(f) + m_{t-1}, i)`,
    `i' = exp(i - m_t)`, `f' = exp(log sigmoid(f) + m_{t-1} - m_t)`,
    `c_t = f' c_{t-1} + i' tanh(z)`, `n_t = f' n_{t-1} + i'`, `h_t = sigmoid(o) c_t / n_t`, and
    `y_t` is h_t normalised a head at a time (Beck et al. 2024, arXiv 2405.04517, equations 8 to 15
    and figure 10). The up-projection that follows in the paper's block is a gated MLP:
    a channel mixer of its own.

    Args:
        num_heads: int >= 1. H, which divides the model width.
        short_taps: int >= 0. The taps of the short convolution before the gates i and f; 0 leaves
            it and its SiLU out.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.SLSTM(num_heads=2)
    y, state = mixer(np.ones((2, 7, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 7, 16) (2, 16)
    ```
    """

    def __init__(self, num_heads: int = 4, short_taps: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"`SLSTM` received num_heads={num_heads}, expected at least 1.")
        if short_taps < 0:
            raise ValueError(
                f"`SLSTM` received short_taps={short_taps}, expected at least 1, or 0 for none."
            )
        self.num_heads = num_heads
        self.short_taps = short_taps
        self.short_convolution = None
        if short_taps:
            self.short_convolution = ShortConvolution(
                short_taps, use_bias=True, dtype=self.dtype_policy, name="short_convolution"
            )

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        if width % self.num_heads:
            raise ValueError(
                f"`SLSTM` received an input of width {width}, which its {self.num_heads} "
                "heads do not divide. Choose another num_heads."
            )
        heads, size = self.num_heads, width // self.num_heads
        self._head_dim = size
        if self.short_convolution is not None:
            self.short_convolution.build(input_shape)
        small = keras.initializers.RandomNormal(stddev=(2 / (5 * width)) ** 0.5)
        self.gate_kernel = self.add_weight((heads, size, 2 * size), small, name="gate_kernel")
        self.value_kernel = self.add_weight((heads, size, 2 * size), small, name="value_kernel")
        self.bias = self.add_weight(
            (heads, 4 * size), self._initial_bias, name="bias", autocast=False
        )
        self.recurrent_kernel = self.add_weight(
            (heads, size, 4 * size), "zeros", name="recurrent_kernel", autocast=False
        )
        self.scale = self.add_weight((width,), "ones", name="scale", autocast=False)
        super().build(input_shape)

    def _initial_bias(self, shape: Any, dtype: Any = None) -> Any:
        """Forget gates from long memory (5) to short (-7), a channel of each head at a time."""
        size = self._head_dim
        bias = np.zeros(shape)
        bias[:, size : 2 * size] = 5.0 - 12.0 * (np.arange(size) / max(1, size - 1)) ** 0.3
        return ops.cast(bias, dtype)

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
        before = state or {}
        short, seen = None, x
        if self.short_convolution is not None:
            seen = self.short_convolution(x, state=before.get("short"), **options)
            seen, short = seen if return_state else (seen, None)
            seen = ops.silu(seen)
        split = (-1, x.shape[1], self.num_heads, self._head_dim)
        early = ops.einsum("bthk,hkj->bthj", ops.reshape(seen, split), self.gate_kernel)
        late = ops.einsum("bthk,hkj->bthj", ops.reshape(x, split), self.value_kernel)
        gates = wide(ops.concatenate([early, late], axis=-1)) + wide(self.bias)
        h = nonlinear_scan(
            SLSTMCell(),
            gates,
            weights=wide(self.recurrent_kernel),
            initial_state=before.get("cell"),
            fresh_state=self._cell_state(1),
            **options,
        )
        h, cell = h if return_state else (h, None)
        center = h - ops.mean(h, axis=-1, keepdims=True)
        h = center * ops.rsqrt(ops.mean(ops.square(center), axis=-1, keepdims=True) + 1e-5)
        y = ops.reshape(h, (-1, *x.shape[1:])) * wide(self.scale)
        state = {"cell": cell} if short is None else {"cell": cell, "short": short}
        return ops.cast(y, self.compute_dtype), state if return_state else None

    def _cell_state(self, batch_size: Any) -> State:
        shape = (batch_size, self.num_heads, self._head_dim)
        dtype = wide_dtype(self.compute_dtype)
        state = {name: ops.zeros(shape, dtype) for name in ("cell", "hidden", "normaliser")}
        return {**state, "stabiliser": ops.full(shape, EMPTY, dtype)}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        state = {"cell": self._cell_state(batch_size)}
        if self.short_convolution is not None:
            state["short"] = self.short_convolution.initial_state(batch_size)
        return state

    def output_weights(self) -> list[Any]:
        return [self.scale]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "short_taps": self.short_taps,
        }
