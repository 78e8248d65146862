"""Mixers of Hugging Face transformers, made into layers of this package.

A converter reads the module's weights and configuration, and imports neither transformers nor
torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.interop.weights import assign, refuse, tensors
from ember_keras.layers import (
    RGLRU,
    Attention,
    GatedDeltaNet,
    Mamba,
    Mamba2,
    RWKV4TimeMixer,
    SlidingAttention,
)

__all__ = ["attention", "gated_delta_net", "mamba", "mamba2", "rg_lru", "rwkv4"]

_ATTENTION = ("LlamaAttention", "MistralAttention", "MixtralAttention", "Qwen2Attention")
_EXACT_GELU = ("GELUActivation", "QuickGELUActivation", "ClippedGELUActivation")


def attention(module: Any) -> Attention:
    """The `Attention` or `SlidingAttention` layer of Llama's, Mistral's, Mixtral's or Qwen2's.

    The class depends on whether the module has a window. Both packages turn channel i with channel
    i + K/2; the paper on rotary positions turns neighbours, which is the same up to the order of a
    head's channels. Where only three of the four maps have biases, the fourth's is zero.

    Args:
        module: a `LlamaAttention`, `MistralAttention`, `MixtralAttention` or `Qwen2Attention`.

    Returns:
        A built layer with the module's weights; a `SlidingAttention` where there is a window.

    Example:

    ```python
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention
    import ember_keras as ek

    config = LlamaConfig(hidden_size=16, num_attention_heads=4, num_key_value_heads=2)
    mixer = ek.interop.transformers.attention(LlamaAttention(config, layer_idx=0))
    ```
    """
    name = type(module).__name__
    # Others have the same weights and use them otherwise: neighbours turned, capped scores.
    if name not in _ATTENTION:
        refuse(f"a {name}", f"one of {', '.join(_ATTENTION)}")
    weights, config = tensors(module), module.config
    rotary = config.rope_parameters
    if rotary.get("rope_type", "default") != "default":
        refuse(f"a {name} with rotary positions of type {rotary['rope_type']!r}", "'default'")
    if module.attention_dropout:
        refuse(f"a {name} with attention_dropout={module.attention_dropout}", "0")
    window = getattr(module, "sliding_window", None)
    if name in ("MistralAttention", "MixtralAttention"):
        window = config.sliding_window
    options: dict[str, Any] = {} if window is None else {"window": window}
    layer = (Attention if window is None else SlidingAttention)(
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=module.head_dim,
        rotary_base=float(rotary["rope_theta"]),
        use_bias="q_proj.bias" in weights,
        **options,
    )
    layer.build((None, None, weights["q_proj.weight"].shape[1]))
    weights.setdefault("o_proj.bias", np.zeros(len(weights["o_proj.weight"]), "float32"))
    _dense(layer.query, weights, "q_proj")
    _dense(layer.key, weights, "k_proj")
    _dense(layer.value, weights, "v_proj")
    _dense(layer.output_projection, weights, "o_proj")
    return layer


def mamba(module: Any) -> Mamba:
    """The `Mamba` layer of a `MambaMixer`, `FalconMambaMixer` or `JambaMambaMixer`.

    Args:
        module: the transformers module.

    Returns:
        A built layer with the module's weights.

    Example:

    ```python
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer
    import ember_keras as ek

    peer = MambaMixer(MambaConfig(hidden_size=16, num_hidden_layers=1), layer_idx=0)
    mixer = ek.interop.transformers.mamba(peer)
    ```
    """
    weights = tensors(module)
    _require(weights, module, "in_proj.weight", "conv1d.weight", "x_proj.weight", "A_log")
    if getattr(module, "activation", "silu") not in ("silu", "swish"):
        raise ValueError(
            f"Received a {type(module).__name__} with the activation {module.activation!r}; "
            "expected 'silu', which is Mamba's. Convert a model that was trained with it."
        )
    inner, state_dim = weights["A_log"].shape
    width = weights["in_proj.weight"].shape[1]
    if inner % width:
        raise ValueError(
            f"Received a {type(module).__name__} with an inner width of {inner} for a width of "
            f"{width}; expected a multiple of it. Such a module has no counterpart here."
        )
    norm = getattr(module, "dt_layernorm", None)
    has_scale = norm is not None and "dt_layernorm.weight" in weights
    epsilon = None
    if norm is not None:
        epsilon = float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)
    layer = Mamba(
        expansion=inner // width,
        state_dim=state_dim,
        dt_rank=weights["dt_proj.weight"].shape[1],
        short_taps=weights["conv1d.weight"].shape[2],
        conv_bias="conv1d.bias" in weights,
        use_bias="in_proj.bias" in weights,
        norm_epsilon=epsilon,
        norm_scale=has_scale,
    )
    layer.build((None, None, width))
    _dense(layer.input_projection, weights, "in_proj")
    _convolution(layer.short_convolution, weights, "conv1d")
    _dense(layer.selection, weights, "x_proj")
    layer.step_projection.kernel.assign(weights["dt_proj.weight"].T)
    _dense(layer.output_projection, weights, "out_proj")
    layer.log_step_bias.assign(weights["dt_proj.bias"])
    layer.log_rate.assign(weights["A_log"])
    layer.skip.assign(weights["D"])
    if has_scale:
        lowered = {name.lower(): value for name, value in weights.items()}
        for scale, name in zip(layer.scales or (), ("dt", "b", "c"), strict=True):
            assign(scale, lowered[f"{name}_layernorm.weight"])
    return layer


def rg_lru(module: Any) -> RGLRU:
    """The `RGLRU` layer of a `RecurrentGemmaRecurrentBlock`.

    Args:
        module: the transformers module.

    Returns:
        A built layer with the module's weights; its `scale_first` is False.

    Example:

    ```python
    from transformers import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma import modeling_recurrent_gemma
    import ember_keras as ek

    config = RecurrentGemmaConfig(hidden_size=16, num_attention_heads=2)
    peer = modeling_recurrent_gemma.RecurrentGemmaRecurrentBlock(config, 0)
    for weight in peer.parameters():
        weight.data.normal_()
    mixer = ek.interop.transformers.rg_lru(peer)
    ```
    """
    weights = tensors(module)
    _require(weights, module, "linear_x.weight", "conv_1d.weight", "rg_lru.recurrent_param")
    activation = type(module.act_fn).__name__
    if "gelu" not in activation.lower() or activation in _EXACT_GELU:
        raise ValueError(
            f"Received a {type(module).__name__} with the activation {activation}; expected the "
            "tanh form of GELU, 'gelu_pytorch_tanh', as in the published models. Such a module "
            "has no counterpart here."
        )
    heads = weights["rg_lru.input_gate_weight"].shape[0]
    layer = RGLRU(
        inner_dim=weights["linear_x.weight"].shape[0],
        num_heads=heads,
        short_taps=weights["conv_1d.weight"].shape[2],
        scale_first=False,
    )
    layer.build((None, None, weights["linear_x.weight"].shape[1]))
    _dense(layer.input_projection, weights, "linear_x")
    _dense(layer.gate_projection, weights, "linear_y")
    _dense(layer.output_projection, weights, "linear_out")
    _convolution(layer.short_convolution, weights, "conv_1d")
    for kind, variable in (("weight", layer.gate_kernel), ("bias", layer.gate_bias)):
        gates = [weights[f"rg_lru.{name}_gate_{kind}"] for name in ("recurrent", "input")]
        variable.assign(np.concatenate(gates, axis=-1))
    layer.log_decay.assign(weights["rg_lru.recurrent_param"])
    return layer


def rwkv4(module: Any) -> RWKV4TimeMixer:
    """The `RWKV4TimeMixer` layer of a `RwkvSelfAttention`.

    Args:
        module: the transformers module.

    Returns:
        A built layer with the module's weights.

    Example:

    ```python
    from transformers import RwkvConfig
    from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention
    import ember_keras as ek

    peer = RwkvSelfAttention(RwkvConfig(hidden_size=16, num_hidden_layers=2))
    for weight in peer.parameters():
        weight.data.normal_()
    mixer = ek.interop.transformers.rwkv4(peer)
    ```
    """
    weights = tensors(module)
    _require(weights, module, "time_decay", "time_first", "time_mix_value", "output.weight")
    inner, width = weights["key.weight"].shape
    layer = RWKV4TimeMixer(inner_dim=inner)
    layer.build((None, None, width))
    for name in ("receptance", "key", "value"):
        _dense(getattr(layer, name), weights, name)
        assign(getattr(layer, f"mu_{name}"), weights[f"time_mix_{name}"].reshape(-1))
    _dense(layer.output_projection, weights, "output")
    assign(layer.log_rate, weights["time_decay"])
    assign(layer.bonus, weights["time_first"])
    return layer


def mamba2(module: Any) -> Mamba2:
    """The `Mamba2` layer of a `Mamba2Mixer`.

    The module's steps ignore `time_step_limit`, which its whole pass keeps to and the paper does
    not have, so that only the default, no limit, is converted.

    Args:
        module: the transformers module.

    Returns:
        A built layer with the module's weights.

    Example:

    ```python
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
    import ember_keras as ek

    config = Mamba2Config(
        hidden_size=16, num_heads=4, head_dim=8, n_groups=2, state_size=8, num_hidden_layers=1
    )
    mixer = ek.interop.transformers.mamba2(Mamba2Mixer(config, layer_idx=0))
    ```
    """
    weights = tensors(module)
    _require(weights, module, "in_proj.weight", "conv1d.weight", "dt_bias", "A_log", "norm.weight")
    _silu(module)
    if tuple(module.time_step_limit) != (0.0, float("inf")):
        refuse(
            f"a {type(module).__name__} with time_step_limit={module.time_step_limit}",
            "(0.0, inf)",
        )
    width, inner = weights["in_proj.weight"].shape[1], len(weights["norm.weight"])
    if inner % width:
        refuse(
            f"a {type(module).__name__} with an inner width of {inner} for a width of {width}",
            "a multiple of it",
        )
    layer = Mamba2(
        expand=inner // width,
        head_dim=module.head_dim,
        state_dim=module.ssm_state_size,
        num_groups=module.n_groups,
        conv_taps=weights["conv1d.weight"].shape[2],
        use_bias="in_proj.bias" in weights,
        conv_bias="conv1d.bias" in weights,
        epsilon=float(module.norm.variance_epsilon),
    )
    layer.build((None, None, width))
    _dense(layer.input_projection, weights, "in_proj")
    _convolution(layer.short_convolution, weights, "conv1d")
    _dense(layer.output_projection, weights, "out_proj")
    assign(layer.log_rate, weights["A_log"])
    assign(layer.step_bias, weights["dt_bias"])
    assign(layer.skip, weights["D"])
    assign(layer.norm.gamma, weights["norm.weight"].reshape(module.n_groups, -1))
    return layer


def gated_delta_net(module: Any) -> GatedDeltaNet:
    """The `GatedDeltaNet` layer of a `Qwen3NextGatedDeltaNet`.

    The module keeps the rows of its two input maps a key head at a time, that head's value heads
    with it; here each of q, k, v, the gate, beta and the decay is whole.

    Args:
        module: the transformers module.

    Returns:
        A built layer with the module's weights.

    Example:

    ```python
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet
    import ember_keras as ek

    config = Qwen3NextConfig(
        hidden_size=16, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=4, linear_value_head_dim=4, num_hidden_layers=1,
    )
    mixer = ek.interop.transformers.gated_delta_net(Qwen3NextGatedDeltaNet(config, layer_idx=0))
    ```
    """
    weights = tensors(module)
    _require(weights, module, "in_proj_qkvz.weight", "in_proj_ba.weight", "conv1d.weight", "A_log")
    _silu(module)
    groups, size = module.num_k_heads, module.num_v_heads // module.num_k_heads
    layer = GatedDeltaNet(
        num_heads=module.num_v_heads,
        num_key_heads=groups,
        key_dim=module.head_k_dim,
        value_dim=module.head_v_dim,
        conv_taps=weights["conv1d.weight"].shape[2],
        epsilon=float(module.norm.variance_epsilon),
    )
    width = weights["in_proj_qkvz.weight"].shape[1]
    layer.build((None, None, width))

    def parts(name: str, *sizes: int) -> list[np.ndarray]:
        """The kernels `(D, units)` whose rows lie side by side in each group."""
        rows = weights[f"{name}.weight"].reshape(groups, sum(sizes), width)
        split = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        return [part.reshape(-1, width).T for part in split]

    keys, values = module.head_k_dim, size * module.head_v_dim
    q, k, v, gate = parts("in_proj_qkvz", keys, keys, values, values)
    assign(layer.input_projection.kernel, np.concatenate([q, k, v], axis=1))
    assign(layer.gate.kernel, gate)
    beta, decay = parts("in_proj_ba", size, size)
    assign(layer.beta.kernel, beta)
    assign(layer.decay.kernel, decay)
    _convolution(layer.short_convolution, weights, "conv1d")
    assign(layer.log_rate, weights["A_log"])
    assign(layer.step_bias, weights["dt_bias"])
    assign(layer.norm.gamma, weights["norm.weight"])
    _dense(layer.output_projection, weights, "out_proj")
    return layer


def _silu(module: Any) -> None:
    if module.activation not in ("silu", "swish"):
        refuse(f"a {type(module).__name__} with the activation {module.activation!r}", "'silu'")


def _require(weights: dict[str, np.ndarray], module: Any, *names: str) -> None:
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(
            f"Received a {type(module).__name__} without {', '.join(missing)}; expected the "
            "weights of the mixer. Pass the mixer itself, such as `model.layers[0].mixer`."
        )


def _dense(layer: Any, weights: dict[str, np.ndarray], name: str) -> None:
    layer.kernel.assign(weights[f"{name}.weight"].T)
    if layer.use_bias:
        layer.bias.assign(weights[f"{name}.bias"])


def _convolution(layer: Any, weights: dict[str, np.ndarray], name: str) -> None:
    """A depthwise convolution; torch's last tap is the position itself."""
    layer.kernel.assign(weights[f"{name}.weight"][:, 0, ::-1].T)
    if layer.use_bias:
        layer.bias.assign(weights[f"{name}.bias"])
