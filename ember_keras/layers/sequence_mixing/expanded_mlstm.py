"""The mLSTM of xLSTM in an expanded width."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.mlstm import (
    forget_biases,
    matrix_memory,
    matrix_memory_state,
)


@registry.sequence_mixers.register("expanded_mlstm")
class ExpandedMLSTM(SequenceMixer):
    """The mLSTM between two maps to and from a larger width, after a short convolution.

    The form of the first xLSTM models, in which it stands alone, without a channel mixer beside it;
    `MLSTM` is that of the later ones, which is faster and has a channel mixer.

    With `u, z = W_u x` and `c = silu(conv(u))`, `q = W_q c`, `k = W_k c` and `v = W_v u`, whose
    weights are block-diagonal, `o` is what `MLSTM` reads from its memory, with gates
    `log i_t = w_i [q, k, v] + b_i` and `f_t = sigmoid(w_f [q, k, v] + b_f)`, and
    `y = W_o ((norm(o) + s c) * silu(z))` (Beck et al. 2024, arXiv 2405.04517, figure 11 and
    equations 19 to 27).

    Args:
        num_heads: int >= 1. H, which divides the inner width.
        inner_dim: int or None. The inner width; 2 D when None.
        block_dim: int >= 1. The width of a block of the weights of queries, keys and values, which
            divides the inner width.
        conv_taps: int >= 1. The taps of the short convolution.
        epsilon: float > 0. Of the norm of each head.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.ExpandedMLSTM(num_heads=2)
    y, state = mixer(np.ones((2, 100, 16), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 16), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 100, 16) (2, 16)
    ```
    """

    _rows_apart = True

    def __init__(
        self,
        num_heads: int = 4,
        inner_dim: int | None = None,
        block_dim: int = 4,
        conv_taps: int = 4,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(
            self,
            1,
            num_heads=num_heads,
            inner_dim=inner_dim,
            block_dim=block_dim,
            conv_taps=conv_taps,
        )
        self.num_heads = num_heads
        self.inner_dim = inner_dim
        self.block_dim = block_dim
        self.conv_taps = conv_taps
        heads.require_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        inner = self.inner_dim or 2 * width
        self._head_dim = heads.head_width(self, inner, self.num_heads, "num_heads or inner_dim")
        blocks = heads.head_width(self, inner, self.block_dim, "block_dim or inner_dim")
        self.input_projection = heads.dense(self, 2 * inner, "input_projection", width)
        self.short_convolution = ShortConvolution(
            self.conv_taps, True, dtype=self.dtype_policy, name="short_convolution"
        )
        self.short_convolution.build((*input_shape[:-1], inner))
        small = keras.initializers.RandomNormal(stddev=(2 / (5 * width)) ** 0.5)
        shape = (blocks, self.block_dim, self.block_dim)
        self.query_kernel = self.add_weight(shape, small, name="query_kernel")
        self.key_kernel = self.add_weight(shape, small.clone(), name="key_kernel")
        self.value_kernel = self.add_weight(shape, small.clone(), name="value_kernel")
        gates: dict[str, Any] = {"use_bias": True, "kernel_initializer": "zeros"}
        self.input_gate = heads.dense(
            self,
            self.num_heads,
            "input_gate",
            3 * inner,
            bias_initializer=keras.initializers.RandomNormal(stddev=0.1),
            **gates,
        )
        self.forget_gate = heads.dense(
            self, self.num_heads, "forget_gate", 3 * inner, bias_initializer=forget_biases, **gates
        )
        self.norm = heads.HeadNorm(
            "layer", shared=False, epsilon=self.epsilon, dtype=self.dtype_policy, name="norm"
        )
        self.norm.build((None, None, self.num_heads, self._head_dim))
        self.skip = self.add_weight((inner,), "ones", name="skip")
        self.output_projection = heads.dense(self, width, "output_projection", inner)
        super().build(input_shape)

    def _by_blocks(self, x: Any, kernel: Any) -> Any:
        blocks = heads.split_heads(x, kernel.shape[0])
        return heads.join_heads(ops.einsum("btni,nij->btnj", blocks, kernel))

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        options = {"mask": mask, "segment_ids": segment_ids}
        before = state or {"short": None, "memory": None}
        u, z = ops.split(self.input_projection(x), 2, axis=-1)
        c, short = self.short_convolution.mix(
            u, before["short"], return_state=return_state, **options
        )
        c = ops.silu(c)
        q = self._by_blocks(c, self.query_kernel)
        k = self._by_blocks(c, self.key_kernel)
        v = self._by_blocks(u, self.value_kernel)
        read = ops.concatenate([q, k, v], axis=-1)
        q, k, v = (wide(heads.split_heads(each, self.num_heads)) for each in (q, k, v))
        o, memory = matrix_memory(
            q,
            k,
            v,
            wide(self.input_gate(read)),
            ops.log_sigmoid(wide(self.forget_gate(read))),
            before["memory"],
            **options,
        )
        o = ops.cast(heads.join_heads(self.norm(o)), self.compute_dtype)
        y = (o + self.skip * c) * ops.silu(z)
        return self.output_projection(y), {"short": short, "memory": memory}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {
            "short": self.short_convolution.initial_state(batch_size),
            "memory": matrix_memory_state(
                batch_size, self.num_heads, self._head_dim, self._head_dim, heads.state_dtype(self)
            ),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "inner_dim": self.inner_dim,
            "block_dim": self.block_dim,
            "conv_taps": self.conv_taps,
            "epsilon": self.epsilon,
        }
