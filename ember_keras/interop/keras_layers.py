"""Recurrent layers of Keras itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.interop.weights import assign, builds, refuse, require
from ember_keras.layers import GRU, LSTM


def lstm(layer: Any, **kwargs: Any) -> LSTM:
    """A `keras.layers.LSTM` as an `ember_keras.layers.LSTM`.

    Args:
        layer: keras.layers.LSTM, built, as wide as its input.
        **kwargs: of the `LSTM`: `name`, `dtype`, `trainable`.

    Returns:
        LSTM, built, with the weights of the layer.

    Example:

    >>> import keras
    >>> layer = keras.layers.LSTM(4, return_sequences=True)
    >>> layer.build((None, None, 4))
    >>> mixer = lstm(layer)
    """
    kernel, recurrent, bias = _weights(layer, "LSTM")
    mixer: LSTM = builds(LSTM(**kwargs), len(kernel))
    assign(mixer.input_projection.kernel, kernel)
    assign(mixer.input_projection.bias, bias)
    assign(mixer.recurrent_kernel, recurrent)
    return mixer


def gru(layer: Any, **kwargs: Any) -> GRU:
    """A `keras.layers.GRU` as an `ember_keras.layers.GRU`.

    Args:
        layer: keras.layers.GRU, built, as wide as its input, with either `reset_after`.
        **kwargs: of the `GRU`: `name`, `dtype`, `trainable`.

    Returns:
        GRU, built, with the weights of the layer.

    Example:

    >>> import keras
    >>> layer = keras.layers.GRU(4, return_sequences=True)
    >>> layer.build((None, None, 4))
    >>> mixer = gru(layer)
    """
    kernel, recurrent, bias = _weights(layer, "GRU")
    width = len(kernel)
    mixer: GRU = builds(GRU(reset_after=bool(layer.reset_after), **kwargs), width)
    if layer.reset_after:
        inner = np.zeros(3 * width) if bias.ndim == 1 else bias[1]
        bias = bias if bias.ndim == 1 else bias[0]
        gates = inner * (np.arange(3 * width) < 2 * width)
        bias = bias + gates
        assign(mixer.candidate_bias, inner[2 * width :])
    # Keras has the update gate first.
    order = np.r_[width : 2 * width, 0:width, 2 * width : 3 * width]
    assign(mixer.input_projection.kernel, kernel[:, order])
    assign(mixer.input_projection.bias, bias[order])
    assign(mixer.recurrent_kernel, recurrent[:, order])
    return mixer


def _weights(layer: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    require(layer, f"a keras.layers.{name}", "built", "go_backwards", "units")
    if not layer.built:
        refuse(f"a {name} that is not built", "one with weights: call it once")
    if layer.go_backwards:
        refuse(f"a {name} with go_backwards=True", "False")
    config = layer.get_config()
    used = config["activation"], config["recurrent_activation"]
    if used != ("tanh", "sigmoid"):
        refuse(f"a {name} with the activations {used}", "('tanh', 'sigmoid')")
    weights = [np.array(weight) for weight in layer.get_weights()]
    kernel, recurrent = weights[:2]
    if kernel.shape[0] != recurrent.shape[0]:
        refuse(
            f"a {name} of {recurrent.shape[0]} units over inputs of width {kernel.shape[0]}",
            "the same, because a sequence mixer keeps the width of its input",
        )
    return kernel, recurrent, weights[2] if len(weights) > 2 else np.zeros(kernel.shape[1])
