"""Layers of the package `xlstm`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.interop.weights import assign, builds, refuse, tensors
from ember_keras.layers import SLSTM


def slstm(module: Any, **kwargs: Any) -> SLSTM:
    """An `sLSTMLayer` of `xlstm` as an `ember_keras.layers.SLSTM`.

    The package names its input gate kernel `fgate` and its forget gate kernel `igate`: the names
    are exchanged where it calls them, and here with them.

    Args:
        module: xlstm's sLSTMLayer with the plain PyTorch backend (`backend="vanilla"`).
        **kwargs: of the `SLSTM`: `name`, `dtype`, `trainable`.

    Returns:
        SLSTM, built, with the weights of the layer.

    Example:

    >>> from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig  # doctest: +SKIP
    >>> config = sLSTMLayerConfig(embedding_dim=16, num_heads=4, backend="vanilla")
    ... # doctest: +SKIP
    >>> mixer = slstm(sLSTMLayer(config))  # doctest: +SKIP
    """
    config = module.config
    if config.backend != "vanilla" or config.function != "slstm":
        refuse(
            f"an sLSTMLayer with backend={config.backend!r} and function={config.function!r}",
            "'vanilla' and 'slstm'",
        )
    if config.dropout:
        refuse(f"an sLSTMLayer with dropout={config.dropout}", "0: a block has its own dropout")
    heads, width, taps = config.num_heads, config.embedding_dim, config.conv1d_kernel_size
    size = width // heads
    mixer: SLSTM = builds(SLSTM(num_heads=heads, short_taps=taps, **kwargs), width)
    weights = tensors(module)
    if mixer.short_convolution is not None:
        assign(mixer.short_convolution.kernel, weights["conv1d.conv.weight"][:, 0, ::-1].T)
        bias = weights.get("conv1d.conv.bias", np.zeros(width, "float32"))
        assign(mixer.short_convolution.bias, bias)

    def kernel(*names: str) -> np.ndarray:
        return np.concatenate([weights[f"{name}.weight"].swapaxes(1, 2) for name in names], axis=2)

    assign(mixer.gate_kernel, kernel("fgate", "igate"))
    assign(mixer.value_kernel, kernel("zgate", "ogate"))
    bias = weights["slstm_cell._bias_"].reshape(4, heads, size)
    assign(mixer.bias, bias.swapaxes(0, 1).reshape(heads, 4 * size))
    assign(mixer.recurrent_kernel, weights["slstm_cell._recurrent_kernel_"].swapaxes(1, 2))
    scale = weights.get("group_norm.weight")
    assign(mixer.scale, np.ones(width) if scale is None else 1.0 + scale)
    return mixer
