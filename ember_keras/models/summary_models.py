"""Models that give one answer for a whole sequence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.models.base import (
    BLOCK_KINDS,
    DEFAULT_BLOCKS,
    HeadedModel,
    require_positive,
    require_tokens,
)
from ember_keras.models.pooling import initial_pool, pool
from ember_keras.models.sequence_model import SequenceModel

_Blocks = list[Annotated[Any, Component(*BLOCK_KINDS)]]


class SummaryModel(HeadedModel):
    """An input map, a stack of blocks, a pooling over time, and a linear head."""

    _adds_last = False
    """Whether the last real input is added to the answer, `(B, steps, F, ..)`."""

    def __init__(
        self,
        outputs: int,
        width: int,
        blocks: Any,
        repeats: int,
        norm: Any,
        dropout: float,
        pooling: str,
        vocab_size: int | None,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_positive(self, width=width, **({"vocab_size": vocab_size} if vocab_size else {}))
        self.width = width
        self.pooling = pooling
        self.vocab_size = vocab_size
        policy = self.dtype_policy
        if vocab_size is None:
            self.input_map = Projection(width, dtype=policy, name="input_map")
        else:
            self.input_map = keras.layers.Embedding(
                vocab_size, width, keras.initializers.RandomNormal(), dtype=policy, name="input_map"
            )
        self.backbone = SequenceModel(
            blocks,
            repeats,
            norm,
            dropout,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            dtype=policy,
            name="backbone",
        )
        self.drop = keras.layers.Dropout(dropout, dtype=policy, name="drop")
        # The answer is float32 whatever the blocks compute in, as a loss wants it.
        self.head = Projection(outputs, dtype=float32_head(policy), name="head")

    @property
    def is_causal(self) -> bool:
        return self.backbone.is_causal

    def build(self, input_shape: Any) -> None:
        shape = self._input_shape(input_shape)
        if self.vocab_size is None:
            require_sequence(self, shape)
        self.input_map.build(shape)
        self.backbone.build((*shape[:2], self.width))
        self.head.build((shape[0], self.width))
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
        x, mask, segment_ids = self._unpack(x, mask, segment_ids)
        if segment_ids is not None:
            raise ValueError(
                f"`{type(self).__name__}` received segment_ids, but gives one answer a row. Put "
                "each sequence in a row of its own, with a mask."
            )
        if state is not None or return_state:
            self._require_causal("state")
        if state is not None:
            self._require_state(state, x)
        if self.vocab_size is None:
            require_sequence(self, tuple(x.shape))
        else:
            require_tokens(self, x)
        mask = None if mask is None else ops.cast(mask, "bool")
        hidden = self.backbone(
            self.input_map(x),
            state=None if state is None else state["backbone"],
            mask=mask,
            training=training,
            return_state=return_state,
        )
        hidden, past = hidden if return_state else (hidden, None)
        before = None if state is None else state["pool"]
        summary, pooled = pool(hidden, mask, before, self.pooling)
        answer = self._shaped(self.head(self.drop(summary, training=training)))
        after = {"backbone": past, "pool": pooled}
        if self._adds_last:
            last, after["last"] = pool(x, mask, None if state is None else state["last"], "last")
            answer = answer + ops.cast(last, answer.dtype)[:, None, :, None]
        return (answer, after) if return_state else answer

    def _shaped(self, answer: Any) -> Any:
        """The answer `(B, outputs)` in the shape that the model gives."""
        return answer

    def _step(self, x_t: Any, state: State) -> tuple[Any, State]:
        return self(ops.expand_dims(x_t, 1), state=state, return_state=True)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def _output_spec(self, x: Any) -> Any:
        x, _, _ = self._unpack(x, None, None)
        return keras.KerasTensor((x.shape[0], self.head.units), dtype=self.head.compute_dtype)

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return {
            "backbone": self.backbone.initial_state(batch_size, max_length),
            "pool": initial_pool(batch_size, self.width, self.pooling, self.compute_dtype),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "blocks": registry.plain(self.blocks),
            "repeats": self.repeats,
            "norm": registry.plain(self.norm),
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
            "depth_scale": self.depth_scale,
            "pooling": self.pooling,
            "vocab_size": self.vocab_size,
        }


def float32_head(policy: Any) -> Any:
    """The policy of a head over blocks of `policy`: float32 unless their weights are narrower."""
    if policy.variable_dtype == "float32":
        return keras.DTypePolicy("float32")
    return policy


@registry.models.register("sequence_classifier")
class SequenceClassifier(SummaryModel):
    """Says which class a whole sequence belongs to.

    An input map, a stack of blocks, a pooling over the real positions, and a linear head. With
    causal blocks it also reads a stream: `step` gives the answer for all that was seen so far.

    Args:
        num_classes: int >= 1. The number of classes.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks and before the head.
        pooling: "mean", "max" or "last", over the real positions.
        vocab_size: int or None. With a number, the input is tokens `(B, T)`; without, vectors `(B,
            T, F)`.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, F)`, or int tensor `(B, T)` where `vocab_size` is given, or a dict
            of it (`x`) with `mask`, as `fit` takes it.
        state, mask, training, return_state: those of every sequence mixer. It takes no
            `segment_ids`.

    Output shape: `(B, num_classes)`, logits.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.SequenceClassifier(num_classes=3, width=16, blocks=["fft_conv", "gated_mlp"])
    print(model(np.ones((2, 40, 1), "float32")).shape)  # (2, 3)
    ```
    """

    def __init__(
        self,
        num_classes: int = 2,
        width: int = 64,
        blocks: _Blocks = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        pooling: Literal["mean", "max", "last"] = "mean",
        vocab_size: int | None = None,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            num_classes,
            width,
            blocks,
            repeats,
            norm,
            dropout,
            pooling,
            vocab_size,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            **kwargs,
        )
        require_positive(self, num_classes=num_classes)
        self.num_classes = num_classes

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@registry.models.register("sequence_regressor")
class SequenceRegressor(SummaryModel):
    """Gives numbers for a whole sequence.

    The same as `SequenceClassifier`, with a linear answer of `num_outputs` numbers.

    Args:
        num_outputs: int >= 1. How many numbers.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks and before the head.
        pooling: "mean", "max" or "last", over the real positions.
        vocab_size: int or None. With a number, the input is tokens `(B, T)`; without, vectors `(B,
            T, F)`.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of `SequenceClassifier`.

    Output shape: `(B, num_outputs)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.SequenceRegressor(num_outputs=1, width=16, blocks=["hyena", "mlp"])
    print(model(np.ones((2, 40, 3), "float32")).shape)  # (2, 1)
    ```
    """

    def __init__(
        self,
        num_outputs: int = 1,
        width: int = 64,
        blocks: _Blocks = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        pooling: Literal["mean", "max", "last"] = "mean",
        vocab_size: int | None = None,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            num_outputs,
            width,
            blocks,
            repeats,
            norm,
            dropout,
            pooling,
            vocab_size,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            **kwargs,
        )
        require_positive(self, num_outputs=num_outputs)
        self.num_outputs = num_outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_outputs": self.num_outputs}
