"""Blocks by the name of the model that they are known from: configurations of `Block`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras

from ember_keras import registry
from ember_keras.blocks.block import Block
from ember_keras.config import Component
from ember_keras.layers.stack import BlockStack

CHANNELS = ("channel_mixers",)
SEQUENCE = ("sequence_mixers",)
PLAIN = ("norm_position", "residual", "dropout", "stochastic_depth")


class Configured(BlockStack):
    """A `Block` around a sequence mixer, then, where there is one, one around a channel mixer."""

    _own_mixer: Any = "attention"
    _own_channel_mixer: Any = None
    _own_norm: Any = "rms_norm"

    def __init__(
        self,
        mixer: Annotated[Any, Component("sequence_mixers")] | None = None,
        channel_mixer: Annotated[Any, Component("channel_mixers")] | None = None,
        norm: Annotated[Any, Component("norms")] | None = None,
        norm_position: Literal["pre", "post"] = "pre",
        residual: Literal["plain", "scaled", "gated", "none"] = "plain",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._take_options(norm, norm_position, residual, dropout, stochastic_depth)
        time = self._block("time", self._own_mixer if mixer is None else mixer, SEQUENCE)
        self.mixer = _written(mixer, time, SEQUENCE)
        self.stack = [time]
        self.channel_mixer = self._add_channel_mixer(channel_mixer)

    def _take_options(
        self, norm: Any, norm_position: Any, residual: Any, dropout: float, stochastic_depth: float
    ) -> None:
        self.norm = norm
        if isinstance(norm, keras.layers.Layer):
            self.norm = registry.part_config(norm, ("norms",))
        self.norm_position = norm_position
        self.residual = residual
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth

    def _block(self, name: str, mixer: Any, kinds: tuple[str, ...]) -> Block:
        policy = self.dtype_policy
        return Block(
            registry.build_part(mixer, kinds, policy, "mixer"),
            registry.plain(self._own_norm if self.norm is None else self.norm),
            self.norm_position,
            self.residual,
            dropout=self.dropout,
            stochastic_depth=self.stochastic_depth,
            dtype=policy,
            name=name,
        )

    def _add_channel_mixer(self, given: Any, place: str = "") -> Any:
        """Adds the block of the channel mixer, and returns what was given for it as it is saved."""
        chosen = self._own_channel_mixer if given is None else given
        if chosen is None:
            return None
        block = self._block(f"channels{place}", chosen, CHANNELS)
        self.stack.append(block)
        return _written(given, block, CHANNELS)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for key in ("mixer", "channel_mixer", "norm"):
            config[key] = registry.plain(getattr(self, key))
        for key in PLAIN:
            config[key] = getattr(self, key)
        return config


def _written(given: Any, block: Block, kinds: tuple[str, ...]) -> Any:
    return None if given is None else registry.part_config(block.mixer, kinds)


@registry.blocks.register("transformer_block")
class TransformerBlock(Configured):
    """Attention, then a gated MLP: the block of today's transformers.

    The two sublayers of Vaswani et al. 2017 (arXiv 1706.03762, section 3.1) in the order and with
    the gate of Llama (Touvron et al. 2023, arXiv 2302.13971, section 2.2): a norm before each,
    SwiGLU, rotary positions.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `attention` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`; `gated_mlp`
            when None.
        norm: a name or configuration of `registry.norms`; `rms_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.TransformerBlock({"type": "attention", "num_heads": 2})
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "attention"
    _own_channel_mixer = "gated_mlp"


@registry.blocks.register("lstm_block")
class LSTMBlock(Configured):
    """An LSTM with a norm before it and a residual around it.

    For small models that read streams: one state vector a layer, a step of constant cost. Residuals
    around recurrent layers are those of Wu et al. 2016 (arXiv 1609.08144, section 3.1).

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `lstm` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`; none
            when None.
        norm: a name or configuration of `registry.norms`; `layer_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.LSTMBlock(dropout=0.1)
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "lstm"
    _own_norm = "layer_norm"


@registry.blocks.register("hyena_block")
class HyenaBlock(Configured):
    """A Hyena operator, then an MLP.

    For long sequences without attention (Poli et al. 2023, arXiv 2302.10866, section 4: a
    transformer whose attention is a Hyena operator).

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `hyena` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`; `mlp`
            when None.
        norm: a name or configuration of `registry.norms`; `layer_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.HyenaBlock({"type": "hyena", "order": 3})
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "hyena"
    _own_channel_mixer = "mlp"
    _own_norm = "layer_norm"


@registry.blocks.register("fft_conv_block")
class FFTConvBlock(Configured):
    """A gated long convolution, then a gated MLP.

    For signals: one filter as long as the sequence a channel (Fu et al. 2023, arXiv 2302.06646).

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `fft_conv` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`; `gated_mlp`
            when None.
        norm: a name or configuration of `registry.norms`; `rms_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.FFTConvBlock({"type": "fft_conv", "filter": "s4d"})
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "fft_conv"
    _own_channel_mixer = "gated_mlp"


@registry.blocks.register("mamba_block")
class MambaBlock(Configured):
    """A selective state space layer with a norm before it and a residual around it.

    Mamba's layer has the gate and the wide maps of an MLP in itself, so nothing follows it (Gu &
    Dao 2023, arXiv 2312.00752, figure 3). With `mixer: mamba2` it is the block of Mamba-2 (Dao & Gu
    2024, arXiv 2405.21060).

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `mamba` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`; none
            when None.
        norm: a name or configuration of `registry.norms`; `rms_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.MambaBlock("mamba2")
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "mamba"


@registry.blocks.register("rwkv_block")
class RWKVBlock(Configured):
    """The time mixer and the channel mixer of RWKV-7.

    Both look at the position before; layer norms stand before each (Peng et al. 2025,
    arXiv 2503.14456, figure 1). Give the mixers of RWKV-4, 5 or 6 for their blocks.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `rwkv7_time_mixer` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`;
            `rwkv7_channel_mixer` when None.
        norm: a name or configuration of `registry.norms`; `layer_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.RWKVBlock("rwkv6_time_mixer", "rwkv6_channel_mixer")
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "rwkv7_time_mixer"
    _own_channel_mixer = "rwkv7_channel_mixer"
    _own_norm = "layer_norm"


@registry.blocks.register("xlstm_block")
class xLSTMBlock(Configured):
    """The mLSTM block of xLSTM, which widens before it mixes.

    Nothing follows it, as the widening and the gate are in the mixer (Beck et al. 2024,
    arXiv 2405.04517, figure 11). With `mixer: slstm` and a channel mixer it is the sLSTM block,
    which widens after it (figure 10).

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `expanded_mlstm` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`; none
            when None.
        norm: a name or configuration of `registry.norms`; `layer_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.xLSTMBlock("slstm", {"type": "gated_mlp", "gate": "geglu"})
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_mixer = "expanded_mlstm"
    _own_norm = "layer_norm"


@registry.blocks.register("moe_block")
class MoEBlock(Configured):
    """Attention, then a mixture of experts, for more parameters at the same cost a token.

    A transformer block whose MLP is a mixture (Jiang et al. 2024, arXiv 2401.04088, section 2);
    with another mixer, that of any other model.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`; `attention` when
            None.
        channel_mixer: a name, configuration or layer of `registry.channel_mixers`;
            `mixture_of_experts` when None.
        norm: a name or configuration of `registry.norms`; `rms_norm` when None.
        norm_position: "pre" or "post", as in `Block`.
        residual: "plain", "scaled", "gated" or "none", as in `Block`.
        dropout: float in [0, 1), as in `Block`.
        stochastic_depth: float in [0, 1), as in `Block`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    block = ek.blocks.MoEBlock(channel_mixer={"type": "mixture_of_experts", "num_experts": 4})
    print(block(np.ones((2, 7, 16), "float32")).shape)  # (2, 7, 16)
    ```
    """

    _own_channel_mixer = "mixture_of_experts"
