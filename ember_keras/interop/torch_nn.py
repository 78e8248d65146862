"""Recurrent layers of `torch.nn`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.interop.weights import assign, builds, refuse, require, tensors
from ember_keras.layers import GRU, LSTM


def lstm(module: Any, layer: int = 0, **kwargs: Any) -> LSTM:
    """One layer of a `torch.nn.LSTM` as an `ember_keras.layers.LSTM`.

    Args:
        module: torch.nn.LSTM whose hidden size is its input size, in one direction and without
            projection.
        layer: int, which of its layers.
        **kwargs: of the `LSTM`: `name`, `dtype`, `trainable`.

    Returns:
        LSTM, built, with the weights of the layer.

    Example:

    >>> import torch  # doctest: +SKIP
    >>> mixer = lstm(torch.nn.LSTM(16, 16, batch_first=True))  # doctest: +SKIP
    """
    found = _layer(module, layer, "LSTM")
    width = found["recurrent"].shape[0]
    mixer: LSTM = builds(LSTM(**kwargs), width)
    assign(mixer.input_projection.kernel, found["input"])
    assign(mixer.input_projection.bias, found["input_bias"] + found["recurrent_bias"])
    assign(mixer.recurrent_kernel, found["recurrent"])
    return mixer


def gru(module: Any, layer: int = 0, **kwargs: Any) -> GRU:
    """One layer of a `torch.nn.GRU` as an `ember_keras.layers.GRU`.

    Args:
        module: torch.nn.GRU whose hidden size is its input size, in one direction.
        layer: int, which of its layers.
        **kwargs: of the `GRU`: `name`, `dtype`, `trainable`.

    Returns:
        GRU, built, with the weights of the layer.

    Example:

    >>> import torch  # doctest: +SKIP
    >>> mixer = gru(torch.nn.GRU(16, 16, batch_first=True))  # doctest: +SKIP
    """
    found = _layer(module, layer, "GRU")
    width = found["recurrent"].shape[0]
    mixer: GRU = builds(GRU(**kwargs), width)
    gates, candidate = found["recurrent_bias"][: 2 * width], found["recurrent_bias"][2 * width :]
    assign(mixer.input_projection.kernel, found["input"])
    bias = found["input_bias"] + np.concatenate([gates, np.zeros_like(candidate)])
    assign(mixer.input_projection.bias, bias)
    assign(mixer.recurrent_kernel, found["recurrent"])
    assign(mixer.candidate_bias, candidate)
    return mixer


def _layer(module: Any, layer: int, name: str) -> dict[str, np.ndarray]:
    require(module, f"a torch.nn.{name}", "num_layers", "bidirectional", "hidden_size")
    if not 0 <= layer < module.num_layers:
        refuse(f"layer={layer} of a {name} of {module.num_layers} layers", "one that it has")
    if module.bidirectional:
        refuse(f"a bidirectional {name}", "one direction; convert each into a layer of its own")
    if getattr(module, "proj_size", 0):
        refuse(f"an {name} with proj_size={module.proj_size}", "none")
    if module.input_size != module.hidden_size:
        refuse(
            f"a {name} of input size {module.input_size} and hidden size {module.hidden_size}",
            "the same, because a sequence mixer keeps the width of its input",
        )
    weights = tensors(module)
    kernels = {
        "input": weights[f"weight_ih_l{layer}"].T,
        "recurrent": weights[f"weight_hh_l{layer}"].T,
    }
    nothing = np.zeros(kernels["input"].shape[1], "float32")
    return {
        **kernels,
        "input_bias": weights.get(f"bias_ih_l{layer}", nothing),
        "recurrent_bias": weights.get(f"bias_hh_l{layer}", nothing),
    }
