"""Layers one after another that share the state contract."""

from __future__ import annotations

from typing import Any

from ember_keras import backend
from ember_keras.layers.base import EmberLayer, State, require_rows, require_sequence
from ember_keras.layers.sequence_mixing.base import Stateful


class Stacked(Stateful):
    """The state contract of a list of blocks, `stack`: the state is the list of theirs."""

    stack: list[Any]
    gradient_checkpointing: bool = False

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
            call = self._caller(block, options.get("training"))
            x = call(x, state=before, return_state=return_state, **options)
            if return_state:
                x, past = x
                after.append(past)
            if seen is not None:
                seen.append(x)
        return x, after

    def _caller(self, block: Any, training: bool | None) -> Any:
        """What runs a block: it, or in training what keeps nothing of it but its input."""
        if not (self.gradient_checkpointing and training):
            return block
        return lambda x, **options: backend.recompute(block, block, x, **options)

    def residual_branches(self) -> list[Any]:
        """The blocks in it that add to the residual stream."""
        return [branch for block in self.stack for branch in block.residual_branches()]

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
