"""What the models share: Keras's own `Model`, the state contract, and how inputs are given."""

from __future__ import annotations

import os
import sys
from typing import Any

import keras
from keras import ops

from ember_keras import backend
from ember_keras.blocks.plan import BLOCK_KINDS as BLOCK_KINDS
from ember_keras.blocks.plan import DEFAULT_BLOCKS as DEFAULT_BLOCKS
from ember_keras.layers.base import EmberCall
from ember_keras.layers.moe.mixture import MixtureOfExperts
from ember_keras.layers.sequence_mixing.base import Stateful

INPUT_KEYS = ("x", "mask", "segment_ids")


class EmberModel(Stateful, EmberCall, keras.Model):
    """A Keras model with the state contract. It is saved, loaded and trained as any other.

    Its input is a tensor, or, where `fit` must carry more, a dict with the keys `x`, `mask` and
    `segment_ids`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model, as Keras's own `fit`; where the backend only predicts, it says so."""
        backend.require_training()
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """One training step, as Keras's own; where the backend only predicts, it says so."""
        backend.require_training()
        return super().train_on_batch(*args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's own; what mixtures of experts report of the batch goes into their metrics.

        It must be done here for jax, whose `fit` keeps no metric that a layer's call changes.
        """
        loss = super().compute_loss(*args, **kwargs)
        for layer in self._flatten_layers():
            if isinstance(layer, MixtureOfExperts):
                layer.update_reports()
        return loss

    def make_train_function(self, force: bool = False) -> Any:
        """Keras's own; on tensorflow it compiles each length of sequences that it meets."""
        return self._made("train", force)

    def make_test_function(self, force: bool = False) -> Any:
        """Keras's own; on tensorflow it compiles each length of sequences that it meets."""
        return self._made("test", force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Keras's own; on tensorflow it compiles each length of sequences that it meets."""
        return self._made("predict", force)

    def _made(self, kind: str, force: bool) -> Any:
        before = getattr(self, f"{kind}_function")
        getattr(super(), f"make_{kind}_function")(force=force)
        if getattr(self, f"{kind}_function") is not before:
            setattr(self, f"{kind}_function", backend.each_length(self, kind))
        return getattr(self, f"{kind}_function")

    def save(
        self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Saves the model, as Keras's own; a `.keras` file by `save_model`, so whole or not at all.

        With `overwrite=False` a file that is there is a `FileExistsError`.
        """
        from ember_keras.models.saving import save_model

        local = isinstance(filepath, str | os.PathLike) and "://" not in str(filepath)
        if local and str(filepath).endswith(".keras") and zipped is not False and not kwargs:
            save_model(self, filepath, overwrite=overwrite)
        else:
            super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def summary(
        self,
        *args: Any,
        batch_size: int | None = None,
        length: int | None = None,
        print_fn: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras's own; with a batch size and a length, also what `ek.models.estimate` says of them.

        Args:
            *args: those of Keras.
            batch_size: int or None, B.
            length: int or None, T.
            print_fn: function of a line of text, or None for the standard output.
            **kwargs: those of Keras.
        """
        from ember_keras.models.costs import estimate

        if (batch_size is None) != (length is None):
            raise ValueError(
                f"`summary` received batch_size={batch_size} and length={length}, expected both "
                "or neither. Give both for an estimate of memory and operations."
            )
        super().summary(*args, print_fn=print_fn, **kwargs)
        if batch_size is not None and length is not None:
            trains = backend.capabilities().trains
            optimizer = getattr(self, "optimizer", None) or "adamw"
            found = estimate(self, batch_size, length, training=trains, optimizer=optimizer)
            if print_fn is None:
                sys.stdout.write(f"{found}\n")
            else:
                print_fn(str(found))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        config["dtype"] = keras.dtype_policies.deserialize(config.get("dtype"))
        return cls(**config)

    def _require_input_keys(self, x: Any) -> None:
        unknown = set(x) - set(INPUT_KEYS)
        if unknown or "x" not in x:
            raise ValueError(
                f"`{type(self).__name__}` received a dict with the keys {sorted(x)}, expected "
                "`x`, and optionally `mask` and `segment_ids`."
            )

    def _unpack(self, x: Any, mask: Any, segment_ids: Any) -> tuple[Any, Any, Any]:
        """The input, its mask and its segment ids, whether they came in a dict or as arguments."""
        if not isinstance(x, dict):
            return x, mask, segment_ids
        self._require_input_keys(x)
        if isinstance(mask, dict):  # Keras gives, unasked, the mask of each entry.
            mask = mask.get("x")
        mask = x.get("mask", mask)
        return x["x"], mask, x.get("segment_ids", segment_ids)

    def _input_shape(self, shape: Any) -> Any:
        return shape["x"] if isinstance(shape, dict) else shape


class HeadedModel(EmberModel):
    """A model around a `backbone`, whose arguments it takes as its own."""

    @property
    def blocks(self) -> Any:
        """The configurations of the blocks, as the model was given them."""
        return self.backbone.blocks

    @property
    def repeats(self) -> int:
        """How many times the list of blocks stands."""
        return self.backbone.repeats

    @property
    def norm(self) -> Any:
        """The configuration of the norms."""
        return self.backbone.norm

    @property
    def dropout(self) -> float:
        """The fraction dropped in training."""
        return self.backbone.dropout

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether each block runs again in the backward pass of training."""
        return self.backbone.gradient_checkpointing

    @property
    def depth_scale(self) -> bool:
        """Whether blocks start smaller the more of them there are."""
        return self.backbone.depth_scale


def real_positions(tokens: Any, mask: Any, pad_token: int | None) -> Any:
    """The mask of a batch of tokens: what the caller says, less the padding token."""
    if mask is not None:
        mask = ops.cast(mask, "bool")
    if pad_token is None:
        return mask
    real = ops.not_equal(tokens, pad_token)
    return real if mask is None else ops.logical_and(mask, real)


def require_tokens(model: keras.Model, x: Any) -> None:
    """Refuses what is no batch of integer tokens `(B, T)`."""
    if len(x.shape) != 2 or "int" not in keras.backend.standardize_dtype(x.dtype):
        raise ValueError(
            f"`{type(model).__name__}` received tokens of shape {tuple(x.shape)} and dtype "
            f"{x.dtype}, expected integers (B, T)."
        )
    if x.shape[1] == 0:
        raise ValueError(
            f"`{type(model).__name__}` received sequences of length 0, expected at least one token."
        )


def require_positive(model: Any, **sizes: int) -> None:
    """Refuses a size below 1, by name."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(
                f"`{type(model).__name__}` received {name}={value}, expected at least 1."
            )
