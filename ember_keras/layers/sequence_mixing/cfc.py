"""Closed-form continuous-time networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from ember_keras import registry
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.sequence_mixing.timed import (
    AnyWiring,
    TimedMixer,
    build_wiring,
    wiring_config,
)
from ember_keras.ops.engines.nonlinear_scan import nonlinear_scan

ACTIVATIONS = {
    "lecun_tanh": lambda x: 1.7159 * ops.tanh(0.666 * x),
    "tanh": ops.tanh,
    "relu": ops.relu,
    "silu": ops.silu,
    "gelu": lambda x: ops.gelu(x, approximate=False),
}
"""The activations of the backbone, by name."""

MODES = ("default", "pure", "no_gate")


@dataclasses.dataclass(frozen=True)
class CfCCell:
    """One position: a signal passes the layers of neurons, each with its own past."""

    mode: str
    activation: str
    backbone_layers: int
    sizes: tuple[int, ...]

    def __call__(self, x: Any, state: State, w: Any) -> tuple[Any, State]:
        time = x["time"] if "time" in x else 1.0
        signal, found, start = x["input"], [], 0
        for at, size in enumerate(self.sizes):
            if at:
                signal = ops.matmul(signal, w[f"input_{at}"]) + w[f"bias_{at}"]
            past = state["neurons"][:, start : start + size]
            signal = signal + ops.matmul(past, w[f"recurrent_{at}"])
            if self.backbone_layers:
                signal = self._backbone(signal, w)
            signal = self._solve(signal, time, w, at)
            found.append(signal)
            start += size
        return signal, {"neurons": found[0] if at == 0 else ops.concatenate(found, axis=-1)}

    def _backbone(self, x: Any, w: Any) -> Any:
        activation = ACTIVATIONS[self.activation]
        x = activation(x)
        for i in range(1, self.backbone_layers):
            x = activation(ops.matmul(x, w[f"backbone_{i}"]) + w[f"backbone_bias_{i}"])
        return ops.matmul(x, w["heads"]) + w["heads_bias"]

    def _solve(self, heads: Any, time: Any, w: Any, at: int) -> Any:
        if self.mode == "pure":
            fall = ops.exp(-time * (ops.abs(w[f"rate_{at}"]) + ops.abs(heads)))
            return w[f"asymptote_{at}"] * (1.0 - fall * heads)
        g, h, slope, offset = ops.split(heads, 4, axis=-1)
        # After long times numpy's sigmoid overflows on its way to 0, and says so.
        gate = ops.sigmoid(ops.maximum(slope * time + offset, -80.0))
        g, h = ops.tanh(g), ops.tanh(h)
        return g + gate * h if self.mode == "no_gate" else g + gate * (h - g)


@registry.sequence_mixers.register("cfc")
class CfC(TimedMixer):
    """A closed-form continuous-time network: a liquid network without a solver.

    For irregularly sampled signals, at the cost of a gated recurrence: the solution of a liquid
    time-constant neuron is approximated in closed form, so that the time step enters one gate.

    With heads g, h, a and b of a network over `(x_t, s_{t-1})` and the time d since the position
    before: `s_t = (1 - c) * tanh(g) + c * tanh(h)`, `c = sigmoid(a d + b)` (Hasani et al. 2021,
    arXiv 2106.13898, equation 3: its sigmoid has -f for a; as in the authors' published models the
    sign is learned and b is a head). `no_gate` leaves out the factor 1 - c. `pure` is the plain
    solution, its equation 2, in their published form: `s_t = A (1 - exp(-d (|r| + |f|)) f)`; its
    rates r start at 1, because at 0 they would not train. `y_t = s_t`.

    With a wiring the heads of a layer of neurons see the layer before it through their synapses
    (g and h alone, as in the authors' models), and their own past in full; there is no backbone.

    Args:
        mode: str, `"default"`, `"pure"` or `"no_gate"`.
        activation: str, of the backbone: `"lecun_tanh"`, `"tanh"`, `"relu"`, `"silu"`, `"gelu"`.
        backbone_units: int >= 1. The width of the network under the heads.
        backbone_layers: int >= 0. Its layers; with 0 the heads see the input and the state.
        wiring: a name or configuration of `registry.wirings`, a wiring, or None for a dense network
            with a backbone. Its outputs are D motor neurons.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first, and `time_deltas`
        `(B, T)`, the time since the position before; 1 when None.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.CfC(backbone_units=32)
    time_deltas = np.full((2, 7), 0.1, "float32")
    y, state = mixer(np.ones((2, 7, 4), "float32"), time_deltas=time_deltas, return_state=True)
    y_next, state = mixer.step(np.ones((2, 4), "float32"), state, time_deltas=np.ones(2))
    print(y.shape, y_next.shape)  # (2, 7, 4) (2, 4)
    ```
    """

    def __init__(
        self,
        mode: str = "default",
        activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        wiring: AnyWiring | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value, valid in (("mode", mode, MODES), ("activation", activation, ACTIVATIONS)):
            if value not in valid:
                raise ValueError(
                    f"`CfC` received {name}={value!r}, expected one of {', '.join(valid)}."
                )
        if backbone_units < 1 or backbone_layers < 0:
            raise ValueError(
                f"`CfC` received backbone_units={backbone_units} and backbone_layers="
                f"{backbone_layers}, expected at least 1, and at least 0."
            )
        self.mode = mode
        self.activation = activation
        self.backbone_units = backbone_units
        self.backbone_layers = backbone_layers
        self.wiring = build_wiring(wiring)

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        heads = 1 if self.mode == "pure" else 4
        layers: Any = (range(width),)
        synapses = None
        if self.wiring is not None:
            synapses = self.wiring.draw(width, width)
            layers = synapses.layers
        last = list(layers[-1])
        self._motors = [last.index(neuron) for neuron in range(width)]
        sizes = tuple(len(layer) for layer in layers)
        self._units = sum(sizes)
        depth = 0 if self.wiring is not None else self.backbone_layers
        self._cell = CfCCell(self.mode, self.activation, depth, sizes)
        self._parts: dict[str, Any] = {}
        self._masks: dict[str, Any] = {}
        inputs = width
        for at, size in enumerate(sizes):
            units = self.backbone_units if depth else heads * size
            self._weight(f"input_{at}", (inputs, units), "glorot_uniform")
            self._weight(f"bias_{at}", (units,), "zeros")
            self._weight(f"recurrent_{at}", (size, units), "glorot_uniform")
            if synapses is not None:
                from_ = synapses.sensory if at == 0 else synapses.recurrent[list(layers[at - 1])]
                seen = np.abs(from_[:, list(layers[at])])
                free = [np.ones_like(seen)] * 2 if heads == 4 else []
                self._masks[f"input_{at}"] = np.concatenate([seen] * min(heads, 2) + free, axis=1)
            if self.mode == "pure":
                self._weight(f"rate_{at}", (size,), "ones")
                self._weight(f"asymptote_{at}", (size,), "ones")
            inputs = size
        for i in range(1, depth):
            shape = (self.backbone_units, self.backbone_units)
            self._weight(f"backbone_{i}", shape, "glorot_uniform")
            self._weight(f"backbone_bias_{i}", shape[1:], "zeros")
        if depth:
            self._weight("heads", (self.backbone_units, heads * width), "glorot_uniform")
            self._weight("heads_bias", (heads * width,), "zeros")
        super().build(input_shape)

    def _weight(self, name: str, shape: Any, initializer: str) -> None:
        self._parts[name] = self.add_weight(shape, initializer, name=name, autocast=False)

    def part(self, name: str) -> Any:
        """The weight of this name, such as `"recurrent_0"`."""
        return self._parts[name]

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
        time_deltas: Any = None,
    ) -> tuple[Any, State | None]:
        weights = {name: wide(weight) for name, weight in self._parts.items()}
        for name, seen in self._masks.items():
            weights[name] = weights[name] * ops.cast(seen, weights[name].dtype)
        inputs = {"input": ops.matmul(wide(x), weights.pop("input_0")) + weights.pop("bias_0")}
        if time_deltas is not None:
            inputs["time"] = time_deltas
        y = nonlinear_scan(
            self._cell,
            inputs,
            weights=weights,
            initial_state=state,
            fresh_state=self.initial_mixer_state(1, None),
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )
        y, state = y if return_state else (y, None)
        if self._motors != list(range(y.shape[-1])):
            y = ops.take(y, self._motors, axis=-1)
        return ops.cast(y, self.compute_dtype), state

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mode": self.mode,
            "activation": self.activation,
            "backbone_units": self.backbone_units,
            "backbone_layers": self.backbone_layers,
            "wiring": wiring_config(self.wiring),
        }
