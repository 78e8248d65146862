"""The time mixer of RWKV-6."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.rwkv_time_mixing import (
    RWKVTimeMixer,
    rising,
    share_of_previous,
    zigzag,
)
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("rwkv6_time_mixer")
class RWKV6TimeMixer(RWKVTimeMixer):
    """The time mixer of RWKV-6 (Finch): the input decides how much of the past stays.

    RWKV-5's matrices, with a decay for each channel and position, and a token shift that the input
    steers, by maps of low rank. It belongs beside `rwkv6_channel_mixer`.

    With `d = x_{t-1} - x_t`, each of r, k, v, g and w sees
    `x_t + d (mu + tanh((x_t + d mu_x) A) B)`, with a mu, A and B of its own; r, k, v and g are maps
    of theirs, and `w_t = exp(-exp(omega + tanh(x_w A_w) B_w))`.
    `o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t`, `S_t = diag(w_t) S_{t-1} + k_t v_t^T`, and
    `y_t = W_o (silu(g_t) * norm(o_t))`, a layer norm for each head (Peng et al. 2024,
    arXiv 2404.05892, equations 9 to 16). The mixes and decays start as those of the authors' first
    layer.

    Args:
        num_heads: int >= 1. H, which divides the inner width; not used where `head_dim` is given.
        head_dim: int or None. K = V, the width of a head; there are as many as fill the inner
            width. The papers use 64.
        inner_dim: int or None. The width of all heads together; D when None.
        mix_rank: int >= 1. The width between each A and B of the token shift.
        decay_rank: int >= 1. The width between those of the decay.
        epsilon: float > 0. Of the norm of each head.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV6TimeMixer(num_heads=2)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _shares = {"receptance": 0.5, "key": 1.0, "value": 1.0, "gate": 0.5, "decay": 1.0}

    def __init__(
        self,
        num_heads: int = 4,
        head_dim: int | None = None,
        inner_dim: int | None = None,
        mix_rank: int = 32,
        decay_rank: int = 64,
        epsilon: float = 64e-5,
        **kwargs: Any,
    ):
        super().__init__(num_heads, head_dim, inner_dim, epsilon, **kwargs)
        heads.require_at_least(self, 1, mix_rank=mix_rank, decay_rank=decay_rank)
        self.mix_rank = mix_rank
        self.decay_rank = decay_rank

    def build_more(self, width: int, inner: int) -> None:
        down = keras.initializers.RandomUniform(-1e-4, 1e-4)
        up = keras.initializers.RandomUniform(-0.01, 0.01)
        parts = len(self._shares)
        self.mu_x = self.add_weight((width,), share_of_previous(1.0), name="mu_x")
        self.mix_down = self.narrow_dense(parts * self.mix_rank, "mix_down", width, down)
        self.mix_up = self.add_weight((parts, self.mix_rank, width), up, name="mix_up")
        self.decay_down = self.narrow_dense(self.decay_rank, "decay_down", width, down)
        self.decay_up = self.narrow_dense(inner, "decay_up", self.decay_rank, up)
        self.gate = heads.dense(self, inner, "gate", width)
        self.log_rate = self.add_wide_weight((inner,), rising(-6.0, -1.0, 0.7), "log_rate")
        self.bonus = self.add_weight(
            (self._heads, self._head_dim), zigzag, name="bonus", autocast=False
        )

    def recur(self, x: Any, change: Any, options: dict[str, Any]) -> tuple[Any, Any, Any]:
        narrow = ops.tanh(self.mix_down(x + change * self.mu_x))
        narrow = ops.split(narrow, len(self._shares), axis=-1)
        mix_up = ops.convert_to_tensor(self.mix_up)
        mixed = {
            name: x + change * (mu + ops.matmul(narrow[i], mix_up[i]))
            for i, (name, mu) in enumerate(self._mixes.items())
        }
        q = self.split(self.receptance(mixed["receptance"]))
        k = self.split(self.key(mixed["key"]))
        v = self.split(self.value(mixed["value"]))
        moved = self.decay_up(ops.tanh(self.decay_down(mixed["decay"])))
        log_decay = -ops.exp(self.split(moved) + self.channels(self.log_rate))
        o, matrix = gated_linear_attention(q, k, v, log_decay, bonus=wide(self.bonus), **options)
        return self.norm(o), ops.silu(self.gate(mixed["gate"])), matrix

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mix_rank": self.mix_rank,
            "decay_rank": self.decay_rank,
        }
