"""Softmax attention through a window."""

from __future__ import annotations

from typing import Annotated, Any

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.sequence_mixing.attention import Attention


@registry.sequence_mixers.register("sliding_attention")
class SlidingAttention(Attention):
    """Softmax attention through a window of the last positions, with rotary positions.

    It copies and recalls exactly what is near, at a cost that grows with the length and not its
    square. Its state is the window, whatever the number of positions seen, and so is the cost of a
    `step`; what is farther away reaches a position through the layers below it, or by other mixers.

    `o_t = sum_s softmax_s(q_t k_s / sqrt(K)) v_s` over t - window < s <= t, a head at a time
    (Beltagy et al. 2020, Longformer, arXiv 2004.05150, section 3.1; Jiang et al. 2023, Mistral 7B,
    arXiv 2310.06825, section 2, with a rolling state). Not causal, over |t - s| < window. Rotary
    positions and grouped heads are those of `Attention`.

    Args:
        window: int >= 1. Positions that a position sees, itself included. Padding takes no place.
        num_heads: int >= 1. H, which divides the model width unless `head_dim` is given.
        num_kv_heads: int or None. G, the heads of keys and values, which divides H; H when None.
        head_dim: int or None. K, the width of a head; D / H when None.
        causal: bool. False also sees the window ahead; it then has no state and no `step`.
        rotary: bool. Whether queries and keys are turned by their position.
        rotary_base: float > 1. The slowest pair of channels turns once in about `2 pi rotary_base`
            positions.
        use_bias: bool. Whether the maps of queries, keys and values have biases.
        output_bias: bool or None. Whether the last map has one; as `use_bias` when None.
        rotary_fraction: float in (0, 1]. The part of a head's channels, the first, that is turned.
        rotary_scaling: dict or None. As in `Attention`.
        head_norm: a name or configuration of `registry.norms`, or None. As in `Attention`.
        output_gate: bool. Whether what the heads give is multiplied by `sigmoid(W_g x)`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.SlidingAttention(window=16, num_heads=4)
    y, state = mixer(np.ones((2, 100, 32), "float32"), return_state=True)
    y_next, state = mixer.step(np.ones((2, 32), "float32"), state)
    print(y.shape, state["mixer"]["key"].shape)  # (2, 100, 32) (2, 15, 4, 8)
    ```
    """

    def __init__(
        self,
        window: int = 128,
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
        super().__init__(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            causal=causal,
            rotary=rotary,
            rotary_base=rotary_base,
            use_bias=use_bias,
            output_bias=output_bias,
            rotary_fraction=rotary_fraction,
            rotary_scaling=rotary_scaling,
            head_norm=head_norm,
            output_gate=output_gate,
            **kwargs,
        )
        if window < 1:
            raise ValueError(
                f"`SlidingAttention` received window={window}, expected at least 1, which sees "
                "the position itself."
            )
        self.window = window

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "window": self.window}
