"""The time mixer of RWKV-5."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.common import heads
from ember_keras.layers.sequence_mixing.rwkv_time_mixing import RWKVTimeMixer, rising, zigzag
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention


@registry.sequence_mixers.register("rwkv5_time_mixer")
class RWKV5TimeMixer(RWKVTimeMixer):
    """The time mixer of RWKV-5 (Eagle): linear attention with a fixed decay for each channel.

    Cheap and steady; every channel of the keys has its own memory length, which training sets and
    the input does not change. It belongs beside `rwkv5_channel_mixer`.

    `r, k, v, g = (x_t + (x_{t-1} - x_t) mu) W`, each with a mu and a W of its own;
    `o_t = (S_{t-1} + diag(u) k_t v_t^T)^T r_t`, `S_t = diag(w) S_{t-1} + k_t v_t^T` with
    `w = exp(-exp(omega))`, and `y_t = W_o (silu(g_t) * norm(o_t))`, a layer norm for each head
    (Peng et al. 2024, arXiv 2404.05892, equations 3 to 8). The mixes and decays start as those of
    the authors' first layer.

    Args:
        num_heads: int >= 1. H, which divides the inner width; not used where `head_dim` is given.
        head_dim: int or None. K = V, the width of a head; there are as many as fill the inner
            width. The papers use 64.
        inner_dim: int or None. The width of all heads together; D when None.
        epsilon: float > 0. Of the norm of each head.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV5TimeMixer(num_heads=2)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _shares = {"receptance": 0.5, "key": 1.0, "value": 1.0, "gate": 0.5}

    def build_more(self, width: int, inner: int) -> None:
        self.gate = heads.dense(self, inner, "gate", width)
        self.log_rate = self.add_wide_weight((inner,), rising(-6.0, -1.0, 0.7), "log_rate")
        self.bonus = self.add_weight(
            (self._heads, self._head_dim), zigzag, name="bonus", autocast=False
        )

    def recur(self, x: Any, change: Any, options: dict[str, Any]) -> tuple[Any, Any, Any]:
        mixed = {name: x + change * mu for name, mu in self._mixes.items()}
        q = self.split(self.receptance(mixed["receptance"]))
        k = self.split(self.key(mixed["key"]))
        v = self.split(self.value(mixed["value"]))
        log_decay = ops.zeros_like(k) - ops.exp(self.channels(self.log_rate))
        o, matrix = gated_linear_attention(q, k, v, log_decay, bonus=wide(self.bonus), **options)
        return self.norm(o), ops.silu(self.gate(mixed["gate"])), matrix
