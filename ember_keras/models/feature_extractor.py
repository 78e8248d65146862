"""A model that gives what its blocks give, by name."""

from __future__ import annotations

from typing import Annotated, Any

import keras
from keras import ops, tree

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State
from ember_keras.models.base import BLOCK_KINDS, DEFAULT_BLOCKS
from ember_keras.models.position_models import InputModel

_Blocks = list[Annotated[Any, Component(*BLOCK_KINDS)]]
_FINAL: Any = ("final",)


@registry.models.register("feature_extractor")
class FeatureExtractor(InputModel):
    """Gives the outputs of chosen blocks by name, for probes, retrieval and models on top.

    An input map and a stack of blocks, without a head. Its output is a dict: `input` is what the
    input map gives, `block_0`, `block_1`, ... what each block gives, and `final` the last block
    behind the last norm. All blocks run, whichever are chosen.

    A trained `TokenClassifier`, `SequenceClassifier` or `SequenceRegressor` of the same `width` and
    `blocks` hands its weights over by its `input_map` and its `backbone`, as below.

    It keeps the state contract, with a dict in the place of the output: `step` gives a dict of
    `(B, D)`. The state is that of the blocks and does not depend on `outputs`.

    Args:
        outputs: list of str, at least one: which outputs it gives, each once.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`.
        repeats: int >= 1. How many times the list stands, one after another. Blocks are counted
            through all repeats.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks.
        vocab_size: int or None. With a number, the input is tokens `(B, T)`; without, vectors `(B,
            T, F)`.
        pad_token: int or None. A token that stands for padding: it is masked.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, F)`, or int tensor `(B, T)` where `vocab_size` is given, or a dict
            of it (`x`) with `mask` and `segment_ids`, as `predict` takes it.
        state, mask, segment_ids, training, return_state: those of every sequence mixer.

    Output shape: a dict with `(B, T, D)` for each name in `outputs`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    options = {"width": 16, "blocks": ["lru", "mlp"], "vocab_size": 9}
    trained = ek.models.TokenClassifier(3, **options)
    x = np.array([[1, 2, 3, 4]])
    print(trained(x).shape)  # (1, 4, 3)

    model = ek.models.FeatureExtractor(["block_0", "final"], **options)
    features = model(x)
    model.input_map.set_weights(trained.input_map.get_weights())
    model.backbone.set_weights(trained.backbone.get_weights())
    print(sorted(features), model(x)["final"].shape)  # ['block_0', 'final'] (1, 4, 16)
    ```
    """

    def __init__(
        self,
        outputs: list[str] = _FINAL,
        width: int = 64,
        blocks: _Blocks = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        vocab_size: int | None = None,
        pad_token: int | None = None,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            width,
            blocks,
            repeats,
            norm,
            dropout,
            vocab_size,
            pad_token,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            **kwargs,
        )
        self.outputs = self._checked_names(outputs)
        self._make_input_map()

    def _checked_names(self, outputs: Any) -> tuple[str, ...]:
        count = len(self.backbone.stack)
        known = ("input", *(f"block_{i}" for i in range(count)), "final")
        found = tuple(outputs)
        if not found or len(set(found)) != len(found) or not set(found) <= set(known):
            raise ValueError(
                f"`{type(self).__name__}` received outputs={list(found)}, expected at least one, "
                f"each once, of 'input', 'block_0' to 'block_{count - 1}', and 'final'. Correct "
                "the names."
            )
        return found

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        training: bool | None = None,
        return_state: bool = False,
    ) -> Any:
        has_state = state is not None or return_state
        x, mask, segment_ids = self._checked(x, mask, segment_ids, has_state)
        options = {"mask": mask, "segment_ids": segment_ids, "training": training}
        features = self._features(self._embedded(x), state, return_state, **options)
        return features if return_state else features[0]

    def _features(
        self, hidden: Any, state: State | None, return_state: bool, **options: Any
    ) -> tuple[dict[str, Any], State]:
        """The chosen outputs of embedded inputs, and the state."""
        seen: list[Any] = []
        last, state = self.backbone._run_stack(hidden, state, return_state, seen, **options)
        known = {"input": hidden, **{f"block_{i}": y for i, y in enumerate(seen)}}
        if "final" in self.outputs:
            known["final"] = self.backbone.final_norm(last)
        return {name: known[name] for name in self.outputs}, state

    def _step(self, x_t: Any, state: State) -> tuple[Any, State]:
        features, state = self(ops.expand_dims(x_t, 1), state=state, return_state=True)
        return tree.map_structure(lambda y: ops.squeeze(y, 1), features), state

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        real = super().compute_mask(inputs, mask)
        return None if real is None else dict.fromkeys(self.outputs, real)

    def _output_spec(self, x: Any) -> Any:
        x, _, _ = self._unpack(x, None, None)
        self._require_inputs(x)
        shape = (*x.shape[:2], self.width)
        return {name: keras.KerasTensor(shape, dtype=self.compute_dtype) for name in self.outputs}

    def get_config(self) -> dict[str, Any]:
        return {"outputs": list(self.outputs), **super().get_config()}
