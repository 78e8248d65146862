"""Liquid networks of the package `ncps`, in its PyTorch form."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.interop.weights import assign, builds, refuse, require, tensors
from ember_keras.layers import LTC, CfC, ExplicitWiring


def ltc(module: Any, **kwargs: Any) -> LTC:
    """An `ncps.torch.LTC` as an `ember_keras.layers.LTC`, with the same wiring.

    Args:
        module: ncps.torch.LTC with as many outputs as inputs, without mixed memory.
        **kwargs: of the `LTC`: `name`, `dtype`, `trainable`.

    Returns:
        LTC, built, with the weights of the module.

    Example:

    >>> import ncps.torch  # doctest: +SKIP
    >>> mixer = ltc(ncps.torch.LTC(4, 4))  # doctest: +SKIP
    """
    require(module, "an ncps.torch.LTC", "rnn_cell", "_wiring", "use_mixed")
    require(module.rnn_cell, "an ncps.torch.LTC", "_ode_unfolds")
    cell, wiring = module.rnn_cell, module._wiring
    _check(module, wiring)
    mixer: LTC = builds(
        LTC(ode_unfolds=cell._ode_unfolds, wiring=_wiring(wiring), **kwargs), wiring.input_dim
    )
    weights = tensors(cell)

    def positive(name: str) -> np.ndarray:
        """The number whose softplus is the peer's, which is that of its own in implicit mode."""
        value = weights[name]
        if cell._implicit_param_constraints:
            return value
        value = np.maximum(value.astype("float64"), 1e-12)
        return value + np.log(-np.expm1(-value))

    for name, start in (("input", 1.0), ("output", 1.0)):
        width = wiring.input_dim
        assign(getattr(mixer, f"{name}_scale"), weights.get(f"{name}_w", np.full(width, start)))
        assign(getattr(mixer, f"{name}_bias"), weights.get(f"{name}_b", np.zeros(width)))
    assign(mixer.leak, positive("gleak"))
    assign(mixer.leak_potential, weights["vleak"])
    assign(mixer.capacitance, positive("cm"))
    for which in ("", "sensory_"):
        assign(getattr(mixer, which + "conductance"), positive(which + "w"))
        assign(getattr(mixer, which + "midpoint"), weights[which + "mu"])
        assign(getattr(mixer, which + "slope"), weights[which + "sigma"])
        assign(getattr(mixer, which + "potential"), weights[which + "erev"])
    return mixer


def cfc(module: Any, **kwargs: Any) -> CfC:
    """An `ncps.torch.CfC` as an `ember_keras.layers.CfC`, with the same wiring where it has one.

    Args:
        module: ncps.torch.CfC with as many outputs as inputs, without mixed memory, projection, and
            dropout in its backbone.
        **kwargs: of the `CfC`: `name`, `dtype`, `trainable`.

    Returns:
        CfC, built, with the weights of the module.

    Example:

    >>> import ncps.torch  # doctest: +SKIP
    >>> mixer = cfc(ncps.torch.CfC(4, 4))  # doctest: +SKIP
    """
    require(module, "an ncps.torch.CfC", "rnn_cell", "use_mixed", "proj_size")
    cell, wiring = module.rnn_cell, getattr(module, "wiring", None)
    if module.proj_size is not None:
        refuse(f"a CfC with proj_size={module.proj_size}", "None")
    _check(module, wiring)
    weights = tensors(cell)
    if wiring is not None:
        mode = cell._layers[0].mode
        mixer: CfC = builds(CfC(mode=mode, wiring=_wiring(wiring), **kwargs), wiring.input_dim)
        inputs = wiring.input_dim
        for at, size in enumerate(cell.layer_sizes):
            heads, bias = _heads(weights, f"layer_{at}.", mode)
            assign(mixer.part(f"input_{at}"), heads[:inputs])
            assign(mixer.part(f"recurrent_{at}"), heads[inputs:])
            assign(mixer.part(f"bias_{at}"), bias)
            _pure(mixer, weights, f"layer_{at}.", at)
            inputs = size
        return mixer
    width, depth = cell.input_size, cell.backbone_layers
    options: dict[str, Any] = {"mode": cell.mode, "backbone_layers": depth}
    heads, bias = _heads(weights, "", cell.mode)
    if depth:
        names = [name for name in weights if name.startswith("backbone") and "weight" in name]
        options["backbone_units"] = len(weights[names[0]])
        options["activation"] = _activation(cell.backbone[1])
    mixer = builds(CfC(**options, **kwargs), width)
    if depth:
        assign(mixer.part("heads"), heads)
        assign(mixer.part("heads_bias"), bias)
        heads, bias = weights[names[0]].T, weights[names[0].replace("weight", "bias")]
        for i, name in enumerate(names[1:], 1):
            assign(mixer.part(f"backbone_{i}"), weights[name].T)
            assign(mixer.part(f"backbone_bias_{i}"), weights[name.replace("weight", "bias")])
    assign(mixer.part("input_0"), heads[:width])
    assign(mixer.part("recurrent_0"), heads[width:])
    assign(mixer.part("bias_0"), bias)
    _pure(mixer, weights, "", 0)
    return mixer


def _heads(weights: dict[str, np.ndarray], prefix: str, mode: str) -> tuple[Any, Any]:
    names = ["ff1"] if mode == "pure" else ["ff1", "ff2", "time_a", "time_b"]
    kernels = [weights[f"{prefix}{name}.weight"].T for name in names]
    biases = [weights[f"{prefix}{name}.bias"] for name in names]
    return np.concatenate(kernels, axis=1), np.concatenate(biases)


def _pure(mixer: CfC, weights: dict[str, np.ndarray], prefix: str, at: int) -> None:
    if mixer.mode == "pure":
        assign(mixer.part(f"rate_{at}"), weights[prefix + "w_tau"][0])
        assign(mixer.part(f"asymptote_{at}"), weights[prefix + "A"][0])


def _activation(module: Any) -> str:
    known = {"LeCun": "lecun_tanh", "SiLU": "silu", "ReLU": "relu", "Tanh": "tanh", "GELU": "gelu"}
    name = type(module).__name__
    if name not in known:
        refuse(f"a CfC with the activation {name}", f"one of {', '.join(known)}")
    return known[name]


def _check(module: Any, wiring: Any) -> None:
    name = type(module).__name__
    if module.use_mixed:
        refuse(f"a {name} with mixed_memory=True", "False")
    inputs = module.input_size if wiring is None else wiring.input_dim
    outputs = module.output_size if wiring is None else wiring.output_dim
    if inputs != outputs:
        refuse(
            f"a {name} of {inputs} inputs and {outputs} outputs",
            "as many of both, because a sequence mixer keeps the width of its input",
        )


def _wiring(wiring: Any) -> ExplicitWiring:
    layers = [wiring.get_neurons_of_layer(at) for at in range(wiring.num_layers)]
    return ExplicitWiring(
        wiring.sensory_adjacency_matrix.tolist(), wiring.adjacency_matrix.tolist(), layers
    )
