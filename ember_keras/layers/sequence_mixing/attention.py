"""Softmax attention."""

from __future__ import annotations

from typing import Annotated, Any

from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.rotary import apply_rotary, require_scaling, token_positions
from ember_keras.layers.norms import build_norm
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines.attention import attention, attention_state


@registry.sequence_mixers.register("attention")
class Attention(SequenceMixer):
    """Softmax attention with rotary positions and grouped heads.

    Every position looks at every earlier one, so it copies and recalls exactly, at a cost that
    grows with the square of the length and a state that grows with it. A few such layers among
    others go far.

    `o_t = sum_s softmax_s(q_t k_s / sqrt(K)) v_s` over s <= t, a head at a time
    (Vaswani et al. 2017, arXiv 1706.03762, equation 1). Queries and keys are turned by their
    position (Su et al. 2021, arXiv 2104.09864); groups of heads share keys and values (Ainslie et
    al. 2023, arXiv 2305.13245).

    Args:
        num_heads: int >= 1. H, which divides the model width unless `head_dim` is given.
        num_kv_heads: int or None. G, the heads of keys and values, which divides H; H when None.
        head_dim: int or None. K, the width of a head; D / H when None.
        causal: bool. False lets every position see all of them; it then has no state and no `step`.
        rotary: bool. Whether queries and keys are turned by their position.
        rotary_base: float > 1. The slowest pair of channels turns once in about `2 pi rotary_base`
            positions.
        use_bias: bool. Whether the maps of queries, keys and values have biases.
        output_bias: bool or None. Whether the last map has one; as `use_bias` when None.
        rotary_fraction: float in (0, 1]. The part of a head's channels, the first, that is turned.
        rotary_scaling: dict or None. Positions beyond those of the training: `factor` alone slows
            every turn (Chen et al. 2023, arXiv 2306.15595); with `low_frequency_factor`,
            `high_frequency_factor` and `original_length` it slows the pairs that turn less often
            than the first in the original length, keeps those that turn more often than the second,
            and mixes between (Grattafiori et al. 2024, Llama 3.1, arXiv 2407.21783).
        head_norm: a name or configuration of `registry.norms`, or None. Norms each head's queries
            and keys before they are turned (Dehghani et al. 2023, arXiv 2302.05442, section 2).
        output_gate: bool. Whether what the heads give is multiplied by `sigmoid(W_g x)` before the
            last map (Qiu et al. 2025, arXiv 2505.06708, section 2.2).
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Attention(num_heads=4, num_kv_heads=2)
    y, state = mixer(np.ones((2, 7, 32), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 32), "float32"), state)
    print(y.shape, y_next.shape)  # (2, 7, 32) (2, 32)
    ```
    """

    window: int | None = None
    """Positions that a position sees, itself included; None for all. `SlidingAttention` has one."""

    def __init__(
        self,
        num_heads: int = 4,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = True,
        rotary: bool = True,
        rotary_base: float = 10000.0,
        use_bias: bool = False,
        output_bias: bool | None = None,
        rotary_fraction: float = 1.0,
        rotary_scaling: dict[str, float] | None = None,
        head_norm: Annotated[Any, Component("norms")] | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        name = type(self).__name__
        groups = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or groups < 1 or num_heads % groups:
            raise ValueError(
                f"`{name}` received num_heads={num_heads} and num_kv_heads={num_kv_heads}, "
                "expected positive numbers of which the second divides the first."
            )
        if head_dim is not None and head_dim < 1:
            raise ValueError(
                f"`{name}` received head_dim={head_dim}, expected at least 1, or None."
            )
        if rotary_base <= 1:
            raise ValueError(f"`{name}` received rotary_base={rotary_base}, expected more than 1.")
        if not 0 < rotary_fraction <= 1:
            raise ValueError(
                f"`{name}` received rotary_fraction={rotary_fraction}, expected more than 0 and at "
                "most 1. Without rotary positions, set rotary=False."
            )
        require_scaling(name, rotary_scaling)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.causal = causal
        self.rotary = rotary
        self.rotary_base = rotary_base
        self.use_bias = use_bias
        self.output_bias = output_bias
        self.rotary_fraction = rotary_fraction
        self.rotary_scaling = rotary_scaling
        self.output_gate = output_gate
        self.query_norm = self.key_norm = None
        if head_norm is not None:
            policy = self.dtype_policy
            self.query_norm = build_norm(head_norm, policy, "query_norm")
            head_norm = registry.part_config(self.query_norm, ("norms",))
            self.key_norm = build_norm(registry.plain(head_norm), policy, "key_norm")
        self.head_norm = head_norm

    @property
    def is_causal(self) -> bool:
        return self.causal

    def build(self, input_shape: Any) -> None:
        width, name = require_sequence(self, input_shape), type(self).__name__
        if self.head_dim is None and width % self.num_heads:
            raise ValueError(
                f"`{name}` received an input of width {width}, which its {self.num_heads} "
                "heads do not divide. Choose another num_heads, or give head_dim."
            )
        self._head_dim = self.head_dim or width // self.num_heads
        self._groups = self.num_kv_heads or self.num_heads
        self.query = self._projection(self.num_heads * self._head_dim, "query", input_shape)
        self.key = self._projection(self._groups * self._head_dim, "key", input_shape)
        self.value = self._projection(self._groups * self._head_dim, "value", input_shape)
        joined = (*input_shape[:-1], self.num_heads * self._head_dim)
        output_bias = self.use_bias if self.output_bias is None else self.output_bias
        self.output_projection = self._projection(width, "output_projection", joined, output_bias)
        if self.output_gate:
            self.gate = self._projection(joined[-1], "gate", input_shape)
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                norm.build((None, None, None, self._head_dim))
        super().build(input_shape)

    def _projection(
        self, units: int, name: str, input_shape: Any, use_bias: bool | None = None
    ) -> Projection:
        use_bias = self.use_bias if use_bias is None else use_bias
        layer = Projection(units, use_bias=use_bias, dtype=self.dtype_policy, name=name)
        layer.build(input_shape)
        return layer

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        batch, time = ops.shape(x)[0], ops.shape(x)[1]
        if state is None and return_state and self.window is not None:
            state = self.initial_mixer_state(batch, None)
        q = ops.reshape(self.query(x), (batch, time, self.num_heads, self._head_dim))
        k = ops.reshape(self.key(x), (batch, time, self._groups, self._head_dim))
        v = ops.reshape(self.value(x), (batch, time, self._groups, self._head_dim))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary:
            seen = None if state is None else state["length"]
            positions = token_positions(x, seen, mask, segment_ids)
            channels = int(self._head_dim * self.rotary_fraction)
            options = (positions, self.rotary_base, self.rotary_scaling, channels)
            q, k = apply_rotary(q, *options), apply_rotary(k, *options)
        o = attention(
            q,
            k,
            v,
            causal=self.causal,
            window=self.window,
            initial_state=state,
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )
        o, state = o if return_state else (o, None)
        o = ops.reshape(o, (batch, time, self.num_heads * self._head_dim))
        if self.output_gate:
            o = o * ops.sigmoid(self.gate(x))
        return self.output_projection(o), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return attention_state(
            batch_size,
            self._groups,
            self._head_dim,
            self._head_dim,
            max_length=max_length if self.window is None else None,
            dtype=self.compute_dtype,
            window=self.window,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "causal": self.causal,
            "rotary": self.rotary,
            "rotary_base": self.rotary_base,
            "use_bias": self.use_bias,
            "output_bias": self.output_bias,
            "rotary_fraction": self.rotary_fraction,
            "rotary_scaling": self.rotary_scaling and dict(self.rotary_scaling),
            "head_norm": registry.plain(self.head_norm),
            "output_gate": self.output_gate,
        }
