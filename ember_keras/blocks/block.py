"""The block that every model stacks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
from keras import ops

from ember_keras import backend, registry
from ember_keras.config import Component
from ember_keras.layers.base import EmberLayer, State, require_rows, require_sequence
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.norms import build_norm
from ember_keras.layers.sequence_mixing import Pooled
from ember_keras.layers.sequence_mixing.base import Stateful

_MIXERS = ("sequence_mixers", "channel_mixers")


@registry.blocks.register("block")
class Block(Stateful, EmberLayer):
    """A norm, any mixer, dropout and a residual: `y = x + dropout(mixer(norm(x)))`.

    The norm stands before the mixer (`"pre"`, Xiong et al. 2020, arXiv 2002.04745, figure 1b), or
    after the residual (`"post"`, figure 1a): `y = norm(x + dropout(mixer(x)))`. With f for the
    dropped-out output of the mixer, the residual is one of

    - plain: `x + f`;
    - scaled: `x + s * f` with a learned s a channel (LayerScale, Touvron et al. 2021,
      arXiv 2103.17239, equation 5);
    - gated: `x + sigmoid(W x + b) * f` (the output gate of Parisotto et al. 2019,
      arXiv 1910.06764, section 3.2);
    - none: `f`.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers` or
            `registry.channel_mixers`.
        norm: a name, configuration or layer of `registry.norms`, or None for no norm.
        norm_position: "pre" or "post".
        residual: "plain", "scaled", "gated" or "none".
        residual_scale: float. Where s of a scaled residual begins.
        dropout: float in [0, 1). The fraction of the mixer's outputs dropped in training.
        stochastic_depth: float in [0, 1). The fraction of rows whose f is dropped as a whole in
            training; that of the others is as much larger (Huang et al. 2016, arXiv 1603.09382).
        pool_size: int >= 1. With P > 1 the mixer reads P positions pooled into one, and its output
            stands until the next P are there: `Pooled` around a causal sequence mixer.
        pooling: "mean", "max" or "last", how P positions become one.
        gradient_checkpointing: bool. Whether the block runs again in the backward pass of training,
            which then keeps its input alone: less memory, a third more time (Chen et al. 2016,
            arXiv 1604.06174).
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
        residual: Literal["plain", "scaled", "gated", "none"] = "plain",
        residual_scale: float = 0.1,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        pool_size: int = 1,
        pooling: Literal["mean", "max", "last"] = "mean",
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0.0 <= stochastic_depth < 1.0:
            raise ValueError(
                f"`{type(self).__name__}` received stochastic_depth={stochastic_depth}, expected "
                "0 or more and below 1. Use e.g. 0.1."
            )
        if stochastic_depth and residual == "none":
            raise ValueError(
                f"`{type(self).__name__}` received stochastic_depth={stochastic_depth} and "
                "residual='none': a row whose mixer is dropped would have nothing left. Use "
                "another residual, or stochastic_depth=0."
            )
        if pool_size < 1:
            raise ValueError(
                f"`{type(self).__name__}` received pool_size={pool_size}, expected at least 1, "
                "which has the mixer read every position."
            )
        self.supports_masking = True
        self.pool_size = pool_size
        self.pooling = pooling
        if pool_size == 1:
            self.mixer = registry.build_part(mixer, _MIXERS, self.dtype_policy, "mixer")
        else:
            read = registry.build_part(mixer, _MIXERS, self.dtype_policy, "mixer")
            if registry.sequence_mixers.name_of(read) is None:
                raise ValueError(
                    f"`{type(self).__name__}` received pool_size={pool_size} and a "
                    f"`{type(read).__name__}` as mixer, expected one of "
                    "`registry.sequence_mixers`: positions are pooled where time is mixed. Leave "
                    "pool_size out."
                )
            options = {"dtype": self.dtype_policy, "name": "mixer"}
            self.mixer = Pooled(read, pool_size, pooling, **options)
        self.norm = None
        if norm is not None:
            self.norm = build_norm(norm, self.dtype_policy, "norm")
        self.norm_position = norm_position
        self.residual = residual
        self.residual_scale = residual_scale
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.gradient_checkpointing = gradient_checkpointing
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="drop")
        self.drop_rows = keras.layers.Dropout(
            stochastic_depth, (None, 1, 1), dtype=self.dtype_policy, name="drop_rows"
        )

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
        if self.residual == "scaled":
            start = keras.initializers.Constant(self.residual_scale)
            self.scale = self.add_weight((input_shape[-1],), start, name="scale")
        elif self.residual == "gated":
            self.gate = Projection(input_shape[-1], "sigmoid", dtype=self.dtype_policy, name="gate")
            self.gate.build(input_shape)
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
        options = {"state": state, "mask": mask, "segment_ids": segment_ids}
        options |= {"training": training, "return_state": return_state}
        if self.gradient_checkpointing and training:
            return backend.recompute(self, self._mixed, x, **options)
        return self._mixed(x, **options)

    def _mixed(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> Any:
        """What `call` gives, of what it has checked."""
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
        y = self._joined(x, self.drop(y, training=training), training)
        if self.norm is not None and self.norm_position == "post":
            y = self.norm(y)
        return (y, state) if return_state else y

    def _joined(self, x: Any, y: Any, training: bool | None) -> Any:
        """The residual of `x` and the mixer's output `y`."""
        if self.residual == "none":
            return y
        if self.residual == "scaled":
            y = ops.cast(self.scale, y.dtype) * y
        elif self.residual == "gated":
            y = self.gate(x) * y
        return x + self.drop_rows(y, training=training)

    def residual_branches(self) -> list[Block]:
        """The blocks that add to the residual stream: this one, unless it has no residual."""
        return [] if self.residual == "none" else [self]

    def scale_start(self, factor: float) -> None:
        """Has what the mixer adds start `factor` times as large, as soon as it is built."""
        weights = self.mixer.output_weights()
        if not weights:
            raise ValueError(
                f"`depth_scale` met a `{type(self.mixer).__name__}`, which has no output "
                "projection that could start smaller, expected mixers that have one. Give its "
                "block residual='none', or the model depth_scale=False."
            )
        for weight in weights:
            backend.scale_start(weight, factor)

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        return self.mixer.initial_state(batch_size, max_length) if self._mixes_time else {}

    def get_config(self) -> dict[str, Any]:
        norm = self.norm
        mixer = self.mixer if self.pool_size == 1 else self.mixer.mixer
        return {
            **super().get_config(),
            "mixer": registry.part_config(mixer, _MIXERS),
            "norm": None if norm is None else registry.part_config(norm, ("norms",)),
            "norm_position": self.norm_position,
            "residual": self.residual,
            "residual_scale": self.residual_scale,
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "pool_size": self.pool_size,
            "pooling": self.pooling,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
