"""Blocks one after another, as one block."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.blocks.block import Block
from ember_keras.blocks.plan import BLOCK_KINDS, DEFAULT_BLOCKS, plan
from ember_keras.config import Component
from ember_keras.layers.stack import BlockStack


@registry.blocks.register("repeat")
class Repeat(BlockStack):
    """A list of blocks that stands several times, one after another, each with its own weights.

    In the `blocks` of a model it is how a part of the list repeats: `[[hyena, gated_mlp] x 3,
    attention]` is written as below. There the model spreads it out, so that its own norm and
    dropout are those of the mixers in it; a repeat on its own puts a plain `Block` around each.

    ```yaml
    blocks:
      - type: repeat
        times: 3
        blocks: [hyena, gated_mlp]
      - attention
    ```

    Args:
        times: int >= 1. How many times the list stands.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`, repeats among them.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.Repeat(2, ["hyena", "mlp"])
    print(block(np.ones((2, 7, 16), "float32")).shape, len(block.stack))  # (2, 7, 16) 4
    ```
    """

    def __init__(
        self,
        times: int = 1,
        blocks: list[Annotated[Any, Component(*BLOCK_KINDS)]] = DEFAULT_BLOCKS,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        planned = plan(self, blocks, times, "times")
        parts = [
            registry.build_part(part, BLOCK_KINDS, self.dtype_policy, f"block_{i}")
            for i, part in enumerate(planned.leaves())
        ]
        self.times = times
        self.blocks = planned.written(iter(parts))
        self.stack = [as_block(part, dtype=self.dtype_policy) for part in parts]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "times": self.times,
            "blocks": registry.plain(self.blocks),
        }


def as_block(part: keras.layers.Layer, **options: Any) -> keras.layers.Layer:
    """A part of a list of blocks as a block: as it is, or with a `Block` of `options` around it."""
    if registry.blocks.name_of(part) is not None:
        return part
    return Block(part, name=part.name, **options)
