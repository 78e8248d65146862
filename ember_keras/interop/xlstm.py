"""Layers of the package `xlstm`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.interop.weights import assign, builds, refuse, require, tensors
from ember_keras.layers import MLSTM, SLSTM, ExpandedMLSTM


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
    require(module, "an sLSTMLayer of xlstm", "config", "slstm_cell")
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


def mlstm(module: Any, **kwargs: Any) -> MLSTM:
    """The `mLSTMLayer` of xLSTM-7B, of `xlstm.xlstm_large`, as an `ember_keras.layers.MLSTM`.

    The package adds its `eps` to the denominator `max(|n . q|, 1)`, scaled by the running maximum;
    the paper does not; this layer keeps it from falling below e^-14 of that maximum. At the default
    of 1e-6 both are below the accuracy of float32 unless the gates are extreme. transformers' xLSTM
    has the same layer.

    Args:
        module: the layer, with either `weight_mode`, without biases in its linear maps.
        **kwargs: of the `MLSTM`: `name`, `dtype`, `trainable`.

    Returns:
        MLSTM, built, with the weights of the layer.

    Example:

    >>> from xlstm.xlstm_large.model import mLSTMLayer, mLSTMLayerConfig  # doctest: +SKIP
    >>> mixer = mlstm(mLSTMLayer(mLSTMLayerConfig(embedding_dim=16, num_heads=4)))
    ... # doctest: +SKIP
    """
    require(module, "the mLSTMLayer of xlstm.xlstm_large", "config")
    config = module.config
    if not hasattr(config, "gate_soft_cap") or not hasattr(module, "multihead_norm"):
        refuse(f"a {type(module).__name__}", "the mLSTMLayer of xlstm.xlstm_large")
    if config.use_bias:
        refuse("an mLSTMLayer with use_bias=True", "False: this layer's norm has no bias")
    weights = tensors(module)
    keys, values, heads = module.qk_dim, module.v_dim, config.num_heads
    if config.weight_mode == "fused":
        cuts = [keys, 2 * keys, 2 * keys + values]
        q, k, v, gate = np.split(weights["qkv_opreact.weight"], cuts)
        gates = np.split(weights["ifgate_preact.weight"], 2)
        biases = np.split(weights["ifgate_preact.bias"], 2)
    else:
        names = ("q", "k", "v", "ogate_preact")
        q, k, v, gate = (weights[f"{name}.weight"] for name in names)
        gates = [weights[f"{name}gate_preact.weight"] for name in "if"]
        biases = [weights[f"{name}gate_preact.bias"] for name in "if"]
    mixer: MLSTM = builds(
        MLSTM(
            num_heads=heads,
            key_dim=keys // heads,
            value_dim=values // heads,
            gate_soft_cap=float(config.gate_soft_cap),
            epsilon=float(config.norm_eps),
            **kwargs,
        ),
        q.shape[1],
    )
    for layer, weight in (
        (mixer.query, q),
        (mixer.key, k),
        (mixer.value, v),
        (mixer.output_gate, gate),
        (mixer.output_projection, weights["out_proj.weight"]),
    ):
        assign(layer.kernel, weight.T)
    for layer, weight, bias in zip(
        (mixer.input_gate, mixer.forget_gate), gates, biases, strict=True
    ):
        assign(layer.kernel, weight.T)
        assign(layer.bias, bias)
    assign(mixer.norm.gamma, weights["multihead_norm.weight"].reshape(heads, -1))
    return mixer


def expanded_mlstm(module: Any, **kwargs: Any) -> ExpandedMLSTM:
    """An `mLSTMLayer` of the first xLSTM models as an `ember_keras.layers.ExpandedMLSTM`.

    What is said in `mlstm` of the package's `eps` holds here too. The norm and the residual around
    it are a block's.

    Args:
        module: xlstm's `xlstm.blocks.mlstm.layer.mLSTMLayer`, without biases and dropout.
        **kwargs: of the `ExpandedMLSTM`: `name`, `dtype`, `trainable`.

    Returns:
        ExpandedMLSTM, built, with the weights of the layer.

    Example:

    >>> from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig  # doctest: +SKIP
    >>> config = mLSTMLayerConfig(embedding_dim=16, context_length=64)  # doctest: +SKIP
    >>> mixer = expanded_mlstm(mLSTMLayer(config))  # doctest: +SKIP
    """
    require(module, "the mLSTMLayer of xlstm.blocks.mlstm.layer", "config")
    config = module.config
    if not hasattr(config, "qkv_proj_blocksize"):
        refuse(f"a {type(module).__name__}", "the mLSTMLayer of xlstm.blocks.mlstm.layer")
    for name in ("bias", "dropout"):
        if getattr(config, name):
            refuse(f"an mLSTMLayer with {name}={getattr(config, name)}", "none")
    weights = tensors(module)
    mixer: ExpandedMLSTM = builds(
        ExpandedMLSTM(
            num_heads=config.num_heads,
            inner_dim=len(weights["learnable_skip"]),
            block_dim=weights["q_proj.weight"].shape[2],
            conv_taps=config.conv1d_kernel_size,
            epsilon=float(module.mlstm_cell.outnorm.eps),
            **kwargs,
        ),
        config.embedding_dim,
    )
    assign(mixer.input_projection.kernel, weights["proj_up.weight"].T)
    assign(mixer.output_projection.kernel, weights["proj_down.weight"].T)
    assign(mixer.short_convolution.kernel, weights["conv1d.conv.weight"][:, 0, ::-1].T)
    assign(mixer.short_convolution.bias, weights["conv1d.conv.bias"])
    assign(mixer.query_kernel, weights["q_proj.weight"].swapaxes(1, 2))
    assign(mixer.key_kernel, weights["k_proj.weight"].swapaxes(1, 2))
    assign(mixer.value_kernel, weights["v_proj.weight"].swapaxes(1, 2))
    for gate, name in ((mixer.input_gate, "igate"), (mixer.forget_gate, "fgate")):
        assign(gate.kernel, weights[f"mlstm_cell.{name}.weight"].T)
        assign(gate.bias, weights[f"mlstm_cell.{name}.bias"])
    scale = 1.0 + weights["mlstm_cell.outnorm.weight"]
    assign(mixer.norm.gamma, scale.reshape(config.num_heads, -1))
    assign(mixer.skip, weights["learnable_skip"])
    return mixer
