"""Experts that are blocks, and so move information along time."""

from __future__ import annotations

from typing import Any

from ember_keras import registry
from ember_keras.layers.stack import BlockStack


class _BlockExpert(BlockStack):
    """Blocks one after another, each a norm, a mixer and a residual."""

    def __init__(self, blocks: list[dict[str, Any]], **kwargs: Any):
        super().__init__(**kwargs)
        self.stack = [
            registry.build_part({"type": "block", **block}, ("blocks",), self.dtype_policy, name)
            for block, name in zip(blocks, ("first", "second"), strict=False)
        ]


@registry.experts.register("transformer")
class TransformerExpert(_BlockExpert):
    """A block of a transformer: attention, then a gated perceptron, each with norm and residual.

    It runs on whole sequences, whichever tokens are sent to it: its keys are those of all of them.

    Args:
        num_heads: int. The heads of the attention.
        causal: bool. Whether a position sees the past alone.
        hidden_dim: int or None. The width inside the perceptron, as of `gated_mlp`.
        norm: str. A name in `registry.norms`.
        dropout: float in [0, 1). The fraction dropped of each mixer's outputs in training.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(
        num_experts=2, top_k=1, expert={"type": "transformer", "num_heads": 2}
    )
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        num_heads: int = 4,
        causal: bool = True,
        hidden_dim: int | None = None,
        norm: str = "rms_norm",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        shared = {"norm": norm, "dropout": dropout}
        attention = {"type": "attention", "num_heads": num_heads, "causal": causal}
        perceptron = {"type": "gated_mlp", "hidden_dim": hidden_dim}
        super().__init__(
            [{"mixer": attention, **shared}, {"mixer": perceptron, **shared}], **kwargs
        )
        self.num_heads = num_heads
        self.causal = causal
        self.hidden_dim = hidden_dim
        self.norm = norm
        self.dropout = dropout

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "causal": self.causal,
            "hidden_dim": self.hidden_dim,
            "norm": self.norm,
            "dropout": self.dropout,
        }


@registry.experts.register("hyena")
class HyenaExpert(_BlockExpert):
    """A Hyena block: norm, Hyena and residual, over whole sequences.

    Args:
        order: int. The order of the Hyena recurrence.
        short_taps: int. The taps of its short convolutions.
        causal: bool. Whether a position sees the past alone.
        norm: str. A name in `registry.norms`.
        dropout: float in [0, 1). The fraction dropped of its outputs in training.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    layer = ek.layers.MixtureOfExperts(num_experts=2, top_k=1, expert="hyena")
    print(layer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    def __init__(
        self,
        order: int = 2,
        short_taps: int = 3,
        causal: bool = True,
        norm: str = "rms_norm",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        mixer = {"type": "hyena", "order": order, "short_taps": short_taps, "causal": causal}
        super().__init__([{"mixer": mixer, "norm": norm, "dropout": dropout}], **kwargs)
        self.order = order
        self.short_taps = short_taps
        self.causal = causal
        self.norm = norm
        self.dropout = dropout

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "order": self.order,
            "short_taps": self.short_taps,
            "causal": self.causal,
            "norm": self.norm,
            "dropout": self.dropout,
        }
