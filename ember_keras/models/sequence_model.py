"""A stack of blocks and a last norm."""

from __future__ import annotations

from typing import Annotated, Any

from ember_keras import registry
from ember_keras.blocks.plan import plan
from ember_keras.blocks.stack import as_block
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.norms import build_norm
from ember_keras.layers.stack import Stacked
from ember_keras.models.base import BLOCK_KINDS, DEFAULT_BLOCKS, EmberModel


@registry.models.register("sequence_model")
class SequenceModel(Stacked, EmberModel):
    """A stack of blocks over vectors, with a norm at the end: `(B, T, D) -> (B, T, D)`.

    The body of every other model here, and a layer for models of your own.

    Args:
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`. A mixer gets a `Block` around it. A part of the list repeats
            as `{"type": "repeat", "times": 3, "blocks": ["hyena", "gated_mlp"]}`.
        repeats: int >= 1. How many times the list stands, one after another, each with its own
            weights.
        norm: a name or configuration of `registry.norms`, for the blocks made here and for the end.
        dropout: float in [0, 1). The dropout of the blocks made here.
        gradient_checkpointing: bool. Whether each block runs again in the backward pass of
            training, which then keeps its input alone: less memory, a third more time (Chen et al.
            2016, arXiv 1604.06174).
        depth_scale: bool. Whether what blocks add to their input starts smaller the more blocks
            there are, by 1 / sqrt(N) with N of them (GPT-2, Radford et al. 2019, section 2.3).
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, D)`, T >= 1.
        state: the nest that `initial_state` or an earlier call returned, or None for a fresh start.
        mask: bool tensor `(B, T)`, True at real positions.
        segment_ids: int tensor `(B, T)`, the same id along each packed sequence.
        training: bool.
        return_state: bool. Gives `(y, state)` in place of `y`.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    body = ek.models.SequenceModel(["hyena", "gated_mlp", "attention", "gated_mlp"])
    print(body(np.ones((2, 9, 16), "float32")).shape)  # (2, 9, 16)
    ```
    """

    def __init__(
        self,
        blocks: list[Annotated[Any, Component(*BLOCK_KINDS)]] = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        planned = plan(self, blocks, repeats)
        self.final_norm = build_norm(norm, self.dtype_policy, "final_norm")
        self.norm = registry.part_config(self.final_norm, ("norms",))
        self.repeats = repeats
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing
        self.depth_scale = depth_scale
        parts = [
            registry.build_part(part, BLOCK_KINDS, self.dtype_policy, f"block_{i}")
            for i, part in enumerate(planned.leaves())
        ]
        self.blocks = planned.written(iter(parts))
        options = {"dropout": dropout, "dtype": self.dtype_policy}
        self.stack = [as_block(part, norm=registry.plain(self.norm), **options) for part in parts]

    def build(self, input_shape: Any) -> None:
        require_sequence(self, input_shape)
        for layer in (*self.stack, self.final_norm):
            layer.build(input_shape)
        if self.depth_scale:
            branches = self.residual_branches()
            for branch in branches:
                branch.scale_start(len(branches) ** -0.5)
        self.built = True

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        training: bool | None = None,
        return_state: bool = False,
    ) -> Any:
        options = {"mask": mask, "segment_ids": segment_ids, "training": training}
        x, after = self._run_stack(x, state, return_state, **options)
        x = self.final_norm(x)
        return (x, after) if return_state else x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "blocks": registry.plain(self.blocks),
            "repeats": self.repeats,
            "norm": registry.plain(self.norm),
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
            "depth_scale": self.depth_scale,
        }
