"""Models that give an answer at every position."""

from __future__ import annotations

from typing import Annotated, Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_rows, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.models.base import (
    BLOCK_KINDS,
    DEFAULT_BLOCKS,
    HeadedModel,
    real_positions,
    require_positive,
    require_tokens,
)
from ember_keras.models.chunked_loss import ChunkedLoss, dense_head, embedding_head
from ember_keras.models.sequence_model import SequenceModel
from ember_keras.models.summary_models import float32_head

_Blocks = list[Annotated[Any, Component(*BLOCK_KINDS)]]
_BOTH_WAYS: Any = ({"type": "attention", "causal": False}, "gated_mlp")


class InputModel(HeadedModel):
    """An input map of tokens or vectors, and a stack of blocks."""

    def __init__(
        self,
        width: int,
        blocks: Any,
        repeats: int,
        norm: Any,
        dropout: float,
        vocab_size: int | None,
        pad_token: int | None,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        sizes = {} if vocab_size is None else {"vocab_size": vocab_size}
        require_positive(self, width=width, **sizes)
        self.width = width
        self.vocab_size = vocab_size
        self.pad_token = pad_token
        policy = self.dtype_policy
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

    def _make_input_map(self) -> None:
        policy = self.dtype_policy
        if self.vocab_size is None:
            self.input_map = Projection(self.width, dtype=policy, name="input_map")
        else:
            start = keras.initializers.RandomNormal()
            self.input_map = keras.layers.Embedding(
                self.vocab_size, self.width, start, dtype=policy, name="input_map"
            )

    @property
    def is_causal(self) -> bool:
        return self.backbone.is_causal

    def build(self, input_shape: Any) -> None:
        shape = self._input_shape(input_shape)
        if self.vocab_size is None:
            require_sequence(self, shape)
        self.input_map.build(shape)
        self.backbone.build((*shape[:2], self.width))
        self._build_head((*shape[:2], self.width))
        self.built = True

    def _build_head(self, shape: Any) -> None:
        """Builds what stands behind the blocks, on their output's shape."""

    def _embedded(self, x: Any) -> Any:
        return self.input_map(x)

    def _require_inputs(self, x: Any) -> None:
        if self.vocab_size is None:
            require_sequence(self, tuple(x.shape))
        else:
            require_tokens(self, x)

    def _checked(
        self, x: Any, mask: Any, segment_ids: Any, has_state: bool
    ) -> tuple[Any, Any, Any]:
        """The input, the mask of its real positions, and its segment ids."""
        x, mask, segment_ids = self._unpack(x, mask, segment_ids)
        self._require_inputs(x)
        require_rows(self, x, mask=mask, segment_ids=segment_ids)
        if has_state:
            self._require_causal("state")
        return x, self._real(x, mask), segment_ids

    def _real(self, x: Any, mask: Any) -> Any:
        return real_positions(x, mask, None if self.vocab_size is None else self.pad_token)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        x, mask, _ = self._unpack(inputs, mask, None)
        return self._real(x, mask)

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return self.backbone.initial_state(batch_size, max_length)

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
            "vocab_size": self.vocab_size,
            "pad_token": self.pad_token,
        }


class PositionModel(InputModel):
    """An input map, a stack of blocks, and a head at each position."""

    def __init__(
        self,
        outputs: int,
        width: int,
        blocks: Any,
        repeats: int,
        norm: Any,
        dropout: float,
        vocab_size: int | None,
        pad_token: int | None,
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
        self.outputs = outputs
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")

    def _make_maps(self) -> None:
        """The input map and the head."""
        self._make_input_map()
        head = float32_head(self.dtype_policy)
        self.head = Projection(self.outputs, dtype=head, name="head")
        self.head.supports_masking = True

    def _build_head(self, shape: Any) -> None:
        self.head.build(shape)

    def _answer(self, hidden: Any, mask: Any, segment_ids: Any) -> Any:
        return self.head(hidden)

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
        hidden = self.backbone(
            self._embedded(x),
            state=state,
            mask=mask,
            segment_ids=segment_ids,
            training=training,
            return_state=return_state,
        )
        hidden, state = hidden if return_state else (hidden, None)
        answer = self._answer(self.drop(hidden, training=training), mask, segment_ids)
        return (answer, state) if return_state else answer

    def _output_spec(self, x: Any) -> Any:
        x, _, _ = self._unpack(x, None, None)
        self._require_inputs(x)
        dtype = float32_head(self.dtype_policy).compute_dtype
        return keras.KerasTensor((*x.shape[:2], self.outputs), dtype=dtype)


@registry.models.register("token_classifier")
class TokenClassifier(ChunkedLoss, PositionModel):
    """Says which class each position belongs to, such as the kind of a word or a tracked state.

    An input map, a stack of blocks, and a linear head at every position. With causal blocks it
    reads a stream by `step`.

    Args:
        num_classes: int >= 1. The number of classes.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks and before the head.
        vocab_size: int or None. With a number, the input is tokens `(B, T)`; without, vectors `(B,
            T, F)`.
        pad_token: int or None. A token that stands for padding: it is masked, in the loss too.
        loss_chunk: int or None. With a number, `fit` and `evaluate` make the logits of as many
            positions of each row at a time, as `CausalLM` does.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, F)`, or int tensor `(B, T)` where `vocab_size` is given, or a dict
            of it (`x`) with `mask` and `segment_ids`, as `fit` takes it.
        state, mask, segment_ids, training, return_state: those of every sequence mixer.

    Output shape: `(B, T, num_classes)`, logits.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.TokenClassifier(3, width=16, blocks=["delta_net", "mlp"], vocab_size=9)
    print(model(np.array([[1, 2, 3, 4]])).shape)  # (1, 4, 3)
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
        vocab_size: int | None = None,
        pad_token: int | None = None,
        loss_chunk: int | None = None,
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
            vocab_size,
            pad_token,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            **kwargs,
        )
        require_positive(self, num_classes=num_classes)
        self.num_classes = num_classes
        self._take_loss_chunk(loss_chunk)
        self._make_maps()

    def _head_weights(self) -> tuple[Any, ...] | None:
        return dense_head(self.head)

    def _answer(self, hidden: Any, mask: Any, segment_ids: Any) -> Any:
        return self._through_head(hidden, self.head)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "loss_chunk": self.loss_chunk,
        }


@registry.models.register("masked_lm")
class MaskedLM(ChunkedLoss, PositionModel):
    """Says which token stands at every position, for those that were masked.

    Trained to restore tokens that were replaced by a mask token (BERT, Devlin et al. 2018,
    arXiv 1810.04805, section 3.1; the task `masked_text` does it). Its blocks look both ways unless
    they are given otherwise.

    Args:
        vocab_size: int >= 1. The number of different tokens, the mask token among them.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`; attention in both directions and a gated MLP by default.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks and before the head.
        tie_embeddings: bool. Whether the head is the embedding, transposed
            (Press & Wolf 2017, arXiv 1608.05859).
        pad_token: int or None. A token that stands for padding: it is masked, in the loss too.
        loss_chunk: int or None. With a number, `fit` and `evaluate` make the logits of as many
            positions of each row at a time, as `CausalLM` does.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: int tensor `(B, T)`, or a dict of it (`x`) with `mask` and `segment_ids`.
        state, mask, segment_ids, training, return_state: those of every sequence mixer.

    Output shape: `(B, T, vocab_size)`, logits.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.MaskedLM(vocab_size=50, width=16)
    print(model(np.array([[1, 49, 3, 4]])).shape)  # (1, 4, 50)
    ```
    """

    def __init__(
        self,
        vocab_size: int = 256,
        width: int = 64,
        blocks: _Blocks = _BOTH_WAYS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        tie_embeddings: bool = True,
        pad_token: int | None = None,
        loss_chunk: int | None = None,
        gradient_checkpointing: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            vocab_size,
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
        self.tie_embeddings = tie_embeddings
        self._take_loss_chunk(loss_chunk)
        self._make_maps()

    def _make_maps(self) -> None:
        self.input_map = keras.layers.ReversibleEmbedding(
            self.vocab_size,
            self.width,
            tie_weights=self.tie_embeddings,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=self.width**-0.5),
            reverse_dtype=float32_head(self.dtype_policy).compute_dtype,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.input_map.supports_masking = True

    def _build_head(self, shape: Any) -> None:
        """The head is in the embedding."""

    def _embedded(self, x: Any) -> Any:
        hidden = self.input_map(x)
        return hidden * ops.cast(self.width**0.5, hidden.dtype)

    def _answer(self, hidden: Any, mask: Any, segment_ids: Any) -> Any:
        return self._through_head(hidden, lambda hidden: self.input_map(hidden, reverse=True))

    def _head_weights(self) -> tuple[Any, ...] | None:
        return embedding_head(self.input_map)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tie_embeddings": self.tie_embeddings,
            "loss_chunk": self.loss_chunk,
        }
