"""A model that puts a whole sequence into one vector, and takes it out again."""

from __future__ import annotations

from typing import Annotated, Any

from keras import ops

from ember_keras import backend, registry
from ember_keras.config import Component
from ember_keras.layers.base import wide
from ember_keras.layers.channel_mixing import MLP
from ember_keras.models.base import BLOCK_KINDS, DEFAULT_BLOCKS
from ember_keras.models.pooling import pool
from ember_keras.models.position_models import PositionModel

_Blocks = list[Annotated[Any, Component(*BLOCK_KINDS)]]


@registry.models.register("autoencoder")
class Autoencoder(PositionModel):
    """Restores a sequence of tokens from the vector after its last position.

    The model of MAD's compression task (Poli et al. 2024, arXiv 2403.17844, section 3.1): how much
    of a sequence do the blocks bring into one position? The vector `h` after the last real position
    is all that the decoder sees: the logits at position t are `head(mlp(h + p_t))`, with p_t the
    sines and cosines of t (Vaswani et al. 2017, arXiv 1706.03762, section 3.5). It has no `step`,
    as every answer depends on the end.

    Args:
        vocab_size: int >= 1. The number of different tokens.
        width: int >= 1. D, the model width, and the width of the vector.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks and on the vector.
        pad_token: int or None. A token that stands for padding: it is masked, in the loss too.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: int tensor `(B, T)`, or a dict of it (`x`) with `mask` and `segment_ids`.
        mask, segment_ids, training: those of every sequence mixer; each packed sequence has a
            vector of its own.

    Output shape: `(B, T, vocab_size)`, logits.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.Autoencoder(vocab_size=16, width=16, blocks=["hyena", "mlp"])
    print(model(np.array([[1, 2, 3, 4]])).shape)  # (1, 4, 16)
    ```
    """

    def __init__(
        self,
        vocab_size: int = 16,
        width: int = 64,
        blocks: _Blocks = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        pad_token: int | None = None,
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
        self._make_maps()
        self.decoder = MLP(dtype=self.dtype_policy, name="decoder")

    @property
    def is_causal(self) -> bool:
        return False

    def _build_head(self, shape: Any) -> None:
        self.decoder.build(shape)
        self.head.build(shape)

    def _answer(self, hidden: Any, mask: Any, segment_ids: Any) -> Any:
        counts = mask
        if mask is None:
            mask = ops.ones(ops.shape(hidden)[:2], "bool")
        if segment_ids is None:
            summary, _ = pool(hidden, mask, None, "last")
            summary = ops.expand_dims(summary, 1)
            place = ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1
        else:
            summary, place = _of_segments(wide(hidden), mask, segment_ids)
        given = summary + _waves(ops.cast(place, summary.dtype), self.width)
        answer = self.head(self.decoder(ops.cast(given, hidden.dtype)))
        return backend.with_mask(answer, counts)  # The loss leaves padding out.


def _of_segments(hidden: Any, mask: Any, segment_ids: Any) -> tuple[Any, Any]:
    """For each position, the vector at the end of its packed sequence, and its place in it."""
    before = ops.concatenate([segment_ids[:, :1], segment_ids[:, :-1]], axis=1)
    run = ops.cumsum(ops.cast(segment_ids != before, "int32"), axis=1)
    same = ops.logical_and(run[:, :, None] == run[:, None, :], mask[:, None, :])
    at = ops.arange(ops.shape(run)[1], dtype="int32")
    end = ops.max(ops.where(same, at[None, None, :], 0), axis=-1)
    chosen = ops.cast(end[:, :, None] == at[None, None, :], hidden.dtype)
    earlier = ops.logical_and(same, at[None, None, :] <= at[None, :, None])
    return ops.matmul(chosen, hidden), ops.sum(ops.cast(earlier, "int32"), axis=-1) - 1


def _waves(place: Any, width: int) -> Any:
    """Sines and cosines `(B, T, D)` of places `(B, T)`, from one position to 10,000 a radian."""
    half = (width + 1) // 2
    rate = ops.exp(-ops.arange(half, dtype=place.dtype) * (9.210340371976184 / max(1, half)))
    angle = place[:, :, None] * rate
    return ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=-1)[:, :, :width]
