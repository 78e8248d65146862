"""The time mixer of RWKV-7."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.orthogonal import orthogonal
from ember_keras.layers.sequence_mixing.rwkv_time_mixing import RWKVTimeMixer, rising
from ember_keras.ops.engines.delta_rule import delta_rule


@registry.sequence_mixers.register("rwkv7_time_mixer")
class RWKV7TimeMixer(RWKVTimeMixer):
    """The time mixer of RWKV-7 (Goose): a delta rule whose learning rate is a vector.

    What is removed from the state and what is put in its place are chosen apart, a channel at a
    time: the strongest at recall and at tracking states among RWKV's. It belongs beside
    `rwkv7_channel_mixer`.

    Each of r, k, v, w, a and g sees `x_t + (x_{t-1} - x_t) mu` with a mu of its own; r, k and v are
    maps of theirs. `a = sigmoid(a_0 + x_a A_a B_a)`, `g = sigmoid(x_g A_g) B_g`,
    `w = exp(-e^(-1/2) sigmoid(w_0 + tanh(x_w A_w) B_w))`. With the removal key
    `kappa = k xi / |k xi|`, a head at a time, and the replacement key `k' = k (1 + (a - 1) alpha)`:
    `S_t = (diag(w_t) - (a_t kappa_t) kappa_t^T) S_{t-1} + k'_t v_t^T`,
    `o_t = norm(S_t^T r_t) + (r_t . (rho k'_t)) v_t`, and `y_t = W_o (g_t * o_t)`, a layer norm for
    each head (Peng et al. 2025, arXiv 2503.14456, equations 2 to 18). The mixes, decays and other
    weights of a channel start as the authors have started those of a first layer; their last
    release starts decays and rates in a zigzag, and W_o at 0, where the maps here start as any
    `Dense`. The length of the removal key is `(|k xi|^2 + 1e-12)^(1/2)`. The paper also leads the
    values of the first layer into those of all later ones; a mixer sees its own input alone, so
    this one is the first layer's, without that residual.

    Args:
        num_heads: int >= 1. H, which divides the inner width; not used where `head_dim` is given.
        head_dim: int or None. K = V, the width of a head; there are as many as fill the inner
            width. The paper uses 64.
        inner_dim: int or None. The width of all heads together; D when None.
        decay_rank: int >= 1. The width between A_w and B_w.
        rate_rank: int >= 1. The width between A_a and B_a.
        gate_rank: int >= 1. The width between A_g and B_g.
        epsilon: float > 0. Of the norm of each head.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV7TimeMixer(num_heads=2)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    _shares = {
        "receptance": 0.2,
        "key": 0.7,
        "value": 0.7,
        "decay": 0.9,
        "rate": 0.9,
        "gate": 0.2,
    }

    def __init__(
        self,
        num_heads: int = 4,
        head_dim: int | None = None,
        inner_dim: int | None = None,
        decay_rank: int = 64,
        rate_rank: int = 64,
        gate_rank: int = 128,
        epsilon: float = 64e-5,
        **kwargs: Any,
    ):
        super().__init__(num_heads, head_dim, inner_dim, epsilon, **kwargs)
        heads.require_at_least(
            self, 1, decay_rank=decay_rank, rate_rank=rate_rank, gate_rank=gate_rank
        )
        self.decay_rank = decay_rank
        self.rate_rank = rate_rank
        self.gate_rank = gate_rank

    def build_more(self, width: int, inner: int) -> None:
        def up(shape: Any, dtype: Any = None) -> Any:
            return ops.cast(0.1 * orthogonal(shape, "float32"), dtype or "float32")

        self.decay_down = self.narrow_dense(self.decay_rank, "decay_down", width, "zeros")
        self.decay_up = self.narrow_dense(inner, "decay_up", self.decay_rank, up)
        self.rate_down = self.narrow_dense(self.rate_rank, "rate_down", width, "zeros")
        self.rate_up = self.narrow_dense(inner, "rate_up", self.rate_rank, up)
        self.gate_down = self.narrow_dense(self.gate_rank, "gate_down", width, "zeros")
        self.gate_up = self.narrow_dense(inner, "gate_up", self.gate_rank, up)

        def channels(name: str, start: Any) -> Any:
            return self.add_weight((inner,), start, name=name, autocast=False)

        constant = keras.initializers.Constant
        self.decay_bias = self.add_wide_weight((inner,), rising(-6.5, -1.5, 0.85), "decay_bias")
        self.rate_bias = channels("rate_bias", "zeros")
        self.removal_scale = channels("removal_scale", constant(0.85))
        self.replacement = channels("replacement", "ones")
        self.bonus = self.add_weight(
            (self._heads, self._head_dim), "zeros", name="bonus", autocast=False
        )

    def recur(self, x: Any, change: Any, options: dict[str, Any]) -> tuple[Any, Any, Any]:
        mixed = {name: x + change * mu for name, mu in self._mixes.items()}
        r = self.split(self.receptance(mixed["receptance"]))
        k = self.split(self.key(mixed["key"]))
        v = self.split(self.value(mixed["value"]))
        decay = self.split(self.decay_up(ops.tanh(self.decay_down(mixed["decay"]))))
        rate = self.split(self.rate_up(self.rate_down(mixed["rate"])))
        gate = self.gate_up(ops.sigmoid(self.gate_down(mixed["gate"])))
        log_decay = -math.exp(-0.5) * ops.sigmoid(decay + self.channels(self.decay_bias))
        rate = ops.sigmoid(rate + self.channels(self.rate_bias))
        removed = heads.unit(k * self.channels(self.removal_scale), 1e-12)
        k = k * (1.0 + (rate - 1.0) * self.channels(self.replacement))
        o, matrix = delta_rule(r, k, v, None, log_decay, erase=(removed, rate * removed), **options)
        own = ops.sum(r * k * wide(self.bonus), axis=-1, keepdims=True) * v
        return wide(self.norm(o)) + own, gate, matrix

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "decay_rank": self.decay_rank,
            "rate_rank": self.rate_rank,
            "gate_rank": self.gate_rank,
        }
