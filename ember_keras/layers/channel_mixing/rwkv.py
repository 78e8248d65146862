"""The channel mixers of RWKV, which also look at the position before."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence
from ember_keras.layers.channel_mixing.mlp import hidden_width
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.token_shift import TokenShift
from ember_keras.layers.sequence_mixing.base import SequenceMixer


class _RWKVChannelMixer(SequenceMixer):
    """A squared-ReLU perceptron over `x` and `x_{t-1}`, with or without a receptance gate."""

    _ratio = 4.0
    _gated = True
    _of_present = False
    """Whether mu is the share of the position itself, in place of that of the one before."""

    def __init__(self, hidden_dim: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        hidden_width(self, hidden_dim, 8, self._ratio)
        self.shift = TokenShift(dtype=self.dtype_policy, name="shift")

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        hidden = hidden_width(self, self.hidden_dim, width, self._ratio)
        options = {"use_bias": False, "dtype": self.dtype_policy}
        self.shift.build(input_shape)
        start = _rising if self._of_present else _falling
        self.mu_key = self.add_weight((width,), start, name="mu_key")
        self.key = Projection(hidden, name="key", **options)
        self.value = Projection(width, name="value", **options)
        self.key.build(input_shape)
        self.value.build((*input_shape[:-1], hidden))
        if self._gated:
            self.mu_receptance = self.add_weight((width,), start, name="mu_receptance")
            self.receptance = Projection(width, name="receptance", **options)
            self.receptance.build(input_shape)
        super().build(input_shape)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        before, state = self.shift(
            x, state=state, mask=mask, segment_ids=segment_ids, return_state=True
        )
        start, change = (before, x - before) if self._of_present else (x, before - x)
        y = self.value(ops.square(ops.relu(self.key(start + change * self.mu_key))))
        if self._gated:
            y = ops.sigmoid(self.receptance(start + change * self.mu_receptance)) * y
        return y, state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return self.shift.initial_state(batch_size)

    def output_weights(self) -> list[Any]:
        return list(self.value.weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_dim": self.hidden_dim}


def _falling(shape: Any, dtype: Any = None) -> Any:
    """From 1, the position before alone, at the first channel, down towards 0 at the last."""
    place = ops.arange(shape[0], dtype="float32") / shape[0]
    return ops.cast(1.0 - place, dtype or "float32")


def _rising(shape: Any, dtype: Any = None) -> Any:
    """From 0, the position before alone, at the first channel, up towards 1 at the last."""
    place = ops.arange(shape[0], dtype="float32") / shape[0]
    return ops.cast(place, dtype or "float32")


@registry.channel_mixers.register("rwkv4_channel_mixer")
class RWKV4ChannelMixer(_RWKVChannelMixer):
    """The channel mixer of RWKV-4 (Dove): a squared-ReLU perceptron with a gate.

    It sees each position and, mixed in, the one before; so it has a state of one position, and the
    methods of a sequence mixer. It belongs beside `rwkv4_time_mixer`. Other than in later
    generations, mu is the share of the position itself.

    `r = (mu_r x_t + (1 - mu_r) x_{t-1}) W_r`, `k = (mu_k x_t + (1 - mu_k) x_{t-1}) W_k`,
    `y_t = sigmoid(r) * (relu(k)^2 W_v)` (Peng et al. 2023, arXiv 2305.13048, equations 14, 15 and
    18).

    Args:
        hidden_dim: int or None. The width of k; 4 times the model width when None.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV4ChannelMixer()
    y, state = mixer(np.ones((2, 5, 8), "float32"), return_state=True)
    print(y.shape)  # (2, 5, 8)
    ```
    """

    _of_present = True


@registry.channel_mixers.register("rwkv5_channel_mixer")
class RWKV5ChannelMixer(_RWKVChannelMixer):
    """The channel mixer of RWKV-5 (Eagle): a squared-ReLU perceptron with a gate.

    It sees each position and, mixed in, the one before; so it has a state of one position, and the
    methods of a sequence mixer. It belongs beside `rwkv5_time_mixer`.

    `r = (x_t + (x_{t-1} - x_t) mu_r) W_r`, `k = (x_t + (x_{t-1} - x_t) mu_k) W_k`,
    `y_t = sigmoid(r) * (relu(k)^2 W_v)` (Peng et al. 2024, arXiv 2404.05892, section 4).

    Args:
        hidden_dim: int or None. The width of k; 3.5 times the model width, up to a multiple of 8,
            when None.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV5ChannelMixer()
    y, state = mixer(np.ones((2, 5, 8), "float32"), return_state=True)
    print(y.shape)  # (2, 5, 8)
    ```
    """

    _ratio = 3.5


@registry.channel_mixers.register("rwkv6_channel_mixer")
class RWKV6ChannelMixer(_RWKVChannelMixer):
    """The channel mixer of RWKV-6 (Finch), which computes what that of RWKV-5 does.

    Under its own name, so that a model says which generation it is. It belongs beside
    `rwkv6_time_mixer`; only that one mixes positions by what the input says.

    `r = (x_t + (x_{t-1} - x_t) mu_r) W_r`, `k = (x_t + (x_{t-1} - x_t) mu_k) W_k`,
    `y_t = sigmoid(r) * (relu(k)^2 W_v)` (Peng et al. 2024, arXiv 2404.05892, section 4).

    Args:
        hidden_dim: int or None. The width of k; 3.5 times the model width, up to a multiple of 8,
            when None.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV6ChannelMixer(hidden_dim=32)
    print(mixer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    _ratio = 3.5


@registry.channel_mixers.register("rwkv7_channel_mixer")
class RWKV7ChannelMixer(_RWKVChannelMixer):
    """The channel mixer of RWKV-7: a squared-ReLU perceptron, without a gate.

    It sees each position and, mixed in, the one before; so it has a state of one position, and the
    methods of a sequence mixer. It belongs beside `rwkv7_time_mixer`.

    `k = (x_t + (x_{t-1} - x_t) mu_k) W_k`, `y_t = relu(k)^2 W_v`
    (Peng et al. 2025, arXiv 2503.14456, section 4).

    Args:
        hidden_dim: int or None. The width of k; 4 times the model width when None.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.RWKV7ChannelMixer()
    print(mixer(np.ones((2, 5, 8), "float32")).shape)  # (2, 5, 8)
    ```
    """

    _gated = False
