"""A stack of blocks and a last norm."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.blocks import Block
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.models.base import BLOCK_KINDS, DEFAULT_BLOCKS, EmberModel, require_positive

MAX_BLOCKS = 10_000
"""More blocks than any machine builds; a configuration that asks for them is a mistake or worse."""


@registry.models.register("sequence_model")
class SequenceModel(EmberModel):
    """A stack of blocks over vectors, with a norm at the end: `(B, T, D) -> (B, T, D)`.

    The body of every other model here, and a layer for models of your own.

    Args:
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`. A mixer gets a `Block` around it.
        repeats: int >= 1. How many times the list stands, one after another, each with its own
            weights.
        norm: a name or configuration of `registry.norms`, for the blocks made here and for the end.
        dropout: float in [0, 1). The dropout of the blocks made here.
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
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(blocks, list | tuple) or not blocks:
            raise ValueError(
                f"`SequenceModel` received blocks={blocks!r}, expected a list of at least one "
                "name or configuration."
            )
        require_positive(self, repeats=repeats)
        if len(blocks) * repeats > MAX_BLOCKS:
            raise ValueError(
                f"`SequenceModel` received {len(blocks)} blocks and repeats={repeats}, expected at "
                f"most {MAX_BLOCKS} blocks in all. Lower repeats."
            )
        if repeats > 1 and any(isinstance(block, keras.layers.Layer) for block in blocks):
            raise ValueError(
                f"`SequenceModel` received a built layer in `blocks` and repeats={repeats}; a "
                "layer stands once. Give its name or configuration, or repeats=1."
            )
        self.final_norm = registry.build_part(norm, ("norms",), self.dtype_policy, "final_norm")
        self.final_norm.supports_masking = True  # Keras's RMSNormalization does not say so.
        self.norm = registry.part_config(self.final_norm, ("norms",))
        self.repeats = repeats
        self.dropout = dropout
        parts = [
            registry.build_part(block, BLOCK_KINDS, self.dtype_policy, f"block_{i}")
            for i, block in enumerate([*blocks] * repeats)
        ]
        self.blocks = [registry.part_config(part, BLOCK_KINDS) for part in parts[: len(blocks)]]
        self.stack = [self._as_block(part) for part in parts]

    def _as_block(self, part: keras.layers.Layer) -> keras.layers.Layer:
        if registry.blocks.name_of(part) is not None:
            return part
        norm, policy = registry.plain(self.norm), self.dtype_policy
        return Block(part, norm, dropout=self.dropout, dtype=policy, name=part.name)

    @property
    def is_causal(self) -> bool:
        return all(block.is_causal for block in self.stack)

    def build(self, input_shape: Any) -> None:
        require_sequence(self, input_shape)
        for layer in (*self.stack, self.final_norm):
            layer.build(input_shape)
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
        if state is not None:
            self._require_state(state, x)
        after = []
        for i, block in enumerate(self.stack):
            before = None if state is None else state[i]
            x = block(x, state=before, return_state=return_state, **options)
            if return_state:
                x, past = x
                after.append(past)
        x = self.final_norm(x)
        return (x, after) if return_state else x

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return [block.initial_state(batch_size, max_length) for block in self.stack]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "blocks": registry.plain(self.blocks),
            "repeats": self.repeats,
            "norm": registry.plain(self.norm),
            "dropout": self.dropout,
        }
