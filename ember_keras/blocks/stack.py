"""Blocks one after another, as one block."""

from __future__ import annotations

from typing import Annotated, Any

import keras

from ember_keras import registry
from ember_keras.blocks.block import Block
from ember_keras.blocks.plan import BLOCK_KINDS, DEFAULT_BLOCKS, plan
from ember_keras.config import Component
from ember_keras.layers.base import EmberLayer, State, require_rows, require_sequence
from ember_keras.layers.sequence_mixing.base import Stateful


class Stacked(Stateful):
    """The state contract of a list of blocks, `stack`: the state is the list of theirs."""

    stack: list[Any]

    @property
    def is_causal(self) -> bool:
        return all(block.is_causal for block in self.stack)

    def _run_stack(
        self,
        x: Any,
        state: State | None,
        return_state: bool,
        seen: list[Any] | None = None,
        **options: Any,
    ) -> tuple[Any, State]:
        """The output of the last block, and the list of states, empty where it is not asked for.

        A list `seen` gets the output of each block.
        """
        if state is not None:
            self._require_state(state, x)
        after = []
        for i, block in enumerate(self.stack):
            before = None if state is None else state[i]
            x = block(x, state=before, return_state=return_state, **options)
            if return_state:
                x, past = x
                after.append(past)
            if seen is not None:
                seen.append(x)
        return x, after

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return [block.initial_state(batch_size, max_length) for block in self.stack]


class BlockStack(Stacked, EmberLayer):
    """A block made of the blocks in `stack`, which a subclass makes."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        require_sequence(self, input_shape)
        for block in self.stack:
            block.build(input_shape)
        super().build(input_shape)

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        training: bool | None = None,
        return_state: bool = False,
    ) -> Any:
        require_sequence(self, tuple(x.shape))
        require_rows(self, x, mask=mask, segment_ids=segment_ids)
        options = {"mask": mask, "segment_ids": segment_ids, "training": training}
        y, state = self._run_stack(x, state, return_state, **options)
        return (y, state) if return_state else y


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
