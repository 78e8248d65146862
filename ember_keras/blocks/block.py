"""The block that every model stacks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import EmberLayer, State, require_rows, require_sequence
from ember_keras.layers.sequence_mixing.base import Stateful

_MIXERS = ("sequence_mixers", "channel_mixers")


@registry.blocks.register("block")
class Block(Stateful, EmberLayer):
    """A norm, any mixer, dropout and a residual: `y = x + dropout(mixer(norm(x)))`.

    The norm stands before the mixer (`"pre"`, Xiong et al. 2020, arXiv 2002.04745, figure 1b), or
    after the residual (`"post"`, figure 1a): `y = norm(x + dropout(mixer(x)))`.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers` or
            `registry.channel_mixers`.
        norm: a name, configuration or layer of `registry.norms`, or None for no norm.
        norm_position: "pre" or "post".
        dropout: float in [0, 1). The fraction of the mixer's outputs dropped in training.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.Block({"type": "attention", "num_heads": 2}, dropout=0.1)
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    def __init__(
        self,
        mixer: Annotated[Any, Component("sequence_mixers", "channel_mixers")] = "attention",
        norm: Annotated[Any, Component("norms")] | None = "rms_norm",
        norm_position: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.mixer = registry.build_part(mixer, _MIXERS, self.dtype_policy, "mixer")
        self.norm = None
        if norm is not None:
            self.norm = registry.build_part(norm, ("norms",), self.dtype_policy, "norm")
            self.norm.supports_masking = True  # Keras's RMSNormalization does not say so.
        self.norm_position = norm_position
        self.dropout = dropout
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")

    @property
    def is_causal(self) -> bool:
        return getattr(self.mixer, "is_causal", True)

    @property
    def _mixes_time(self) -> bool:
        return isinstance(self.mixer, Stateful)

    def build(self, input_shape: Any) -> None:
        require_sequence(self, input_shape)
        if self.norm is not None:
            self.norm.build(input_shape)
        self.mixer.build(input_shape)
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
        y = self.norm(x) if self.norm is not None and self.norm_position == "pre" else x
        if self._mixes_time:
            y = self.mixer(
                y,
                state=state,
                mask=mask,
                segment_ids=segment_ids,
                training=training,
                return_state=return_state,
            )
            y, state = y if return_state else (y, None)
        else:
            y, state = self.mixer(y, training=training), {}
        y = x + self.drop(y, training=training)
        if self.norm is not None and self.norm_position == "post":
            y = self.norm(y)
        return (y, state) if return_state else y

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return self.mixer.initial_state(batch_size, max_length) if self._mixes_time else {}

    def get_config(self) -> dict[str, Any]:
        norm = self.norm
        return {
            **super().get_config(),
            "mixer": registry.part_config(self.mixer, _MIXERS),
            "norm": None if norm is None else registry.part_config(norm, ("norms",)),
            "norm_position": self.norm_position,
            "dropout": self.dropout,
        }
