"""A model of the next token."""

from __future__ import annotations

from typing import Annotated, Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_rows
from ember_keras.layers.norms import build_norm
from ember_keras.models.base import (
    BLOCK_KINDS,
    DEFAULT_BLOCKS,
    HeadedModel,
    real_positions,
    require_positive,
    require_tokens,
)
from ember_keras.models.chunked_loss import ChunkedLoss, embedding_head
from ember_keras.models.generation import Generation
from ember_keras.models.sequence_model import SequenceModel


@registry.models.register("causal_lm")
class CausalLM(Generation, ChunkedLoss, HeadedModel):
    """Predicts the next token at every position: an embedding, a stack of blocks, and a head.

    Args:
        vocab_size: int >= 1. The number of different tokens.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`, all of them causal.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1).
        tie_embeddings: bool. Whether the head is the embedding, transposed
            (Press & Wolf 2017, arXiv 1608.05859).
        pad_token: int or None. A token that stands for padding: it is masked, in the loss too.
        embedding_scale: float > 0 or None. What embeddings are multiplied by; sqrt(D) when None
            (Vaswani et al. 2017, arXiv 1706.03762, section 3.4).
        logit_cap: float > 0 or None. With one, logits are `cap tanh(logits / cap)`, which stay
            below it (Gemma Team 2024, arXiv 2408.00118, section 2).
        loss_chunk: int or None. With a number, `fit` and `evaluate` make the logits of as many
            positions of each row at a time, for the loss and the metrics alike, and never those of
            all. It takes less memory, and a third more arithmetic in the head; the loss must be
            `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        embedding_norm: a name or configuration of `registry.norms`, or None. A norm of the
            embeddings, before the first block, as RWKV has it (Peng et al. 2023, arXiv 2305.13048,
            section 3.4).
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: int tensor `(B, T)`, or a dict of it (`x`) with `mask` and `segment_ids`, as `fit` takes
            it.
        state, mask, segment_ids, training, return_state: those of every sequence mixer.

    Output shape: `(B, T, vocab_size)`, logits in float32 (float64 of a float64 model).

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.CausalLM(vocab_size=50, width=16, blocks=["hyena", "gated_mlp", "attention"])
    print(model(np.array([[1, 2, 3, 4]])).shape)  # (1, 4, 50)
    print(model.generate([1, 2, 3], max_new_tokens=5, seed=0).shape)  # (8,)
    ```
    """

    def __init__(
        self,
        vocab_size: int = 256,
        width: int = 128,
        blocks: list[Annotated[Any, Component(*BLOCK_KINDS)]] = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        tie_embeddings: bool = True,
        pad_token: int | None = None,
        embedding_scale: float | None = None,
        logit_cap: float | None = None,
        loss_chunk: int | None = None,
        gradient_checkpointing: bool = False,
        embedding_norm: Annotated[Any, Component("norms")] | None = None,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_positive(self, vocab_size=vocab_size, width=width)
        self.vocab_size = vocab_size
        self.width = width
        self.tie_embeddings = tie_embeddings
        self.pad_token = pad_token
        for name, value in (("embedding_scale", embedding_scale), ("logit_cap", logit_cap)):
            if value is not None and value <= 0:
                raise ValueError(f"`CausalLM` received {name}={value}, expected more than 0.")
        self.embedding_scale = embedding_scale
        self.logit_cap = logit_cap
        self._take_loss_chunk(loss_chunk)
        self.backbone = SequenceModel(
            blocks,
            repeats,
            norm,
            dropout,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            dtype=self.dtype_policy,
            name="backbone",
        )
        if not self.backbone.is_causal:
            raise ValueError(
                "`CausalLM` received a bidirectional block, which would see the token it predicts. "
                "Build every block causal."
            )
        self.embedding = keras.layers.ReversibleEmbedding(
            vocab_size,
            width,
            tie_weights=tie_embeddings,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=width**-0.5),
            reverse_dtype=self._logits_dtype,
            logit_soft_cap=logit_cap,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.embedding.supports_masking = True  # Its reverse call sees what the backbone masked.
        self.embedding_norm = None
        if embedding_norm is not None:
            self.embedding_norm = build_norm(embedding_norm, self.dtype_policy, "embedding_norm")

    @property
    def _logits_dtype(self) -> str:
        return "float64" if self.compute_dtype == "float64" else "float32"

    def build(self, input_shape: Any) -> None:
        shape = self._input_shape(input_shape)
        self.embedding.build(shape)
        if self.embedding_norm is not None:
            self.embedding_norm.build((*shape, self.width))
        self.backbone.build((*shape, self.width))
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
        tokens, mask, segment_ids = self._unpack(x, mask, segment_ids)
        require_tokens(self, tokens)
        require_rows(self, tokens, mask=mask, segment_ids=segment_ids)
        hidden = self._hidden(
            tokens,
            state=state,
            mask=real_positions(tokens, mask, self.pad_token),
            segment_ids=segment_ids,
            training=training,
            return_state=return_state,
        )
        if return_state:
            hidden, state = hidden
            return self._logits(hidden), state
        return self._through_head(hidden, self._logits)

    def _hidden(self, tokens: Any, **options: Any) -> Any:
        """What the head reads, `(B, T, D)`; the options are those of the backbone."""
        hidden = self.embedding(tokens)
        scale = self.width**0.5 if self.embedding_scale is None else self.embedding_scale
        hidden = hidden if scale == 1 else hidden * ops.cast(scale, hidden.dtype)
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        return self.backbone(hidden, **options)

    def _logits(self, hidden: Any) -> Any:
        """The head: `(B, T, D)` to `(B, T, vocab_size)`."""
        return self.embedding(hidden, reverse=True)

    def _head_weights(self) -> tuple[Any, ...] | None:
        return embedding_head(self.embedding)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        tokens, mask, _ = self._unpack(inputs, mask, None)
        return real_positions(tokens, mask, self.pad_token)

    def _output_spec(self, x: Any) -> Any:
        tokens, _, _ = self._unpack(x, None, None)
        require_tokens(self, tokens)
        return keras.KerasTensor((*tokens.shape, self.vocab_size), dtype=self._logits_dtype)

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_built()
        return self.backbone.initial_state(batch_size, max_length)

    def get_config(self) -> dict[str, Any]:
        norm = self.embedding_norm
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "width": self.width,
            "blocks": registry.plain(self.blocks),
            "repeats": self.repeats,
            "norm": registry.plain(self.norm),
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
            "depth_scale": self.depth_scale,
            "tie_embeddings": self.tie_embeddings,
            "pad_token": self.pad_token,
            "embedding_scale": self.embedding_scale,
            "logit_cap": self.logit_cap,
            "loss_chunk": self.loss_chunk,
            "embedding_norm": None if norm is None else registry.part_config(norm, ("norms",)),
        }
