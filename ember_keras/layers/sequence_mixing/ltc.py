"""Liquid time-constant networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
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
from ember_keras.ops.kernels import time_loop
from ember_keras.ops.kernels.synapses import synapses


@dataclasses.dataclass(frozen=True)
class LTCCell:
    """One position: `ode_unfolds` steps of the fused solver, from the input and the potentials."""

    ode_unfolds: int

    def __call__(self, x: Any, state: State, weights: Any) -> tuple[Any, State]:
        w = weights
        sensory = _synapses(x["input"], w, "sensory_")
        step = (x["time"] if "time" in x else 1.0) / self.ode_unfolds
        v = state["neurons"]
        for _ in range(self.ode_unfolds):
            current, conductance = _synapses(v, w, "")
            current = current + sensory[0] + w["leak_current"]
            conductance = conductance + sensory[1] + w["leak"]
            v = (w["capacitance"] * v + step * current) / (w["capacitance"] + step * conductance)
        return v, {"neurons": v}


def _synapses(v: Any, w: Any, which: str) -> tuple[Any, Any]:
    """The current and the conductance that the synapses from potentials `v` add to each neuron."""
    conductance = w[which + "conductance"]
    weights = (conductance * w[which + "potential"], conductance)
    return synapses(v, w[which + "slope"], w[which + "offset"], weights)


@registry.sequence_mixers.register("ltc")
class LTC(TimedMixer):
    """A liquid time-constant network: neurons whose time constants depend on their inputs.

    Few neurons, each an equation that can be read; made for control and irregularly sampled
    signals. Each position costs the number of synapses times `ode_unfolds`, so it is for widths of
    tens rather than thousands.

    `C dv/dt = g_l (v_l - v) + sum_j w_j sigmoid(s_j (u_j - m_j)) (E_j - v)` over the synapses j
    from inputs and neurons u_j (Hasani et al. 2020, arXiv 2006.04439, equation 2 in the form of its
    section 5), solved by steps of the fused semi-implicit Euler method, its algorithm 1:
    `v <- (C v + d (g_l v_l + sum w sigmoid E)) / (C + d (g_l + sum w sigmoid))` with
    `d = time_delta / ode_unfolds`. `y_t` are the motor neurons, scaled and shifted.
    Capacitances and conductances stay positive through a softplus.

    Args:
        ode_unfolds: int >= 1. Solver steps a position.
        wiring: a name or configuration of `registry.wirings`, or a wiring. Its outputs are D motor
            neurons.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first, and `time_deltas`
        `(B, T)`, the time since the position before; 1 when None. At 0 nothing moves.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.LTC(wiring={"type": "ncp", "units": 16})
    time_deltas = np.full((2, 7), 0.1, "float32")
    y, state = mixer(np.ones((2, 7, 4), "float32"), time_deltas=time_deltas, return_state=True)
    y_next, state = mixer.step(np.ones((2, 4), "float32"), state, time_deltas=np.ones(2))
    print(y.shape, y_next.shape)  # (2, 7, 4) (2, 4)
    ```
    """

    def __init__(self, ode_unfolds: int = 6, wiring: AnyWiring = "full", **kwargs: Any):
        super().__init__(**kwargs)
        if ode_unfolds < 1:
            raise ValueError(f"`LTC` received ode_unfolds={ode_unfolds}, expected at least 1.")
        if wiring is None:
            raise ValueError("`LTC` received wiring=None, expected one such as 'full' or 'ncp'.")
        self.ode_unfolds = ode_unfolds
        self.wiring = build_wiring(wiring)

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._width = width
        self._synapses = self.wiring.draw(width, width)
        units = self._units = len(self._synapses.recurrent)
        self.input_scale = self._weight((width,), (1, 1), "input_scale")
        self.input_bias = self._weight((width,), (0, 0), "input_bias")
        self.output_scale = self._weight((width,), (1, 1), "output_scale")
        self.output_bias = self._weight((width,), (0, 0), "output_bias")
        self.leak = self._weight((units,), (0.001, 1), "leak", positive=True)
        self.leak_potential = self._weight((units,), (-0.2, 0.2), "leak_potential")
        self.capacitance = self._weight((units,), (0.4, 0.6), "capacitance", positive=True)
        for which, signs in (("", self._synapses.recurrent), ("sensory_", self._synapses.sensory)):
            for name, limits, positive in (
                ("conductance", (0.001, 1), True),
                ("midpoint", (0.3, 0.8), False),
                ("slope", (3, 8), False),
            ):
                weight = self._weight(signs.shape, limits, which + name, positive)
                setattr(self, which + name, weight)
            weight = self._weight(signs.shape, signs, which + "potential")
            setattr(self, which + "potential", weight)
        super().build(input_shape)

    def _weight(self, shape: Any, start: Any, name: str, positive: bool = False) -> Any:
        def initializer(shape: Any, dtype: Any = None) -> Any:
            if isinstance(start, np.ndarray):
                return ops.cast(start, dtype)
            value = keras.initializers.RandomUniform(*start)(shape, "float32")
            return ops.cast(ops.log(ops.expm1(value)) if positive else value, dtype)

        return self.add_weight(shape, initializer, name=name, autocast=False)

    def _constants(self) -> dict[str, Any]:
        found = {
            "leak": ops.softplus(wide(self.leak)),
            "capacitance": ops.softplus(wide(self.capacitance)),
        }
        found["leak_current"] = found["leak"] * wide(self.leak_potential)
        for which, signs in (("", self._synapses.recurrent), ("sensory_", self._synapses.sensory)):
            slope = wide(getattr(self, which + "slope"))
            conductance = ops.softplus(wide(getattr(self, which + "conductance")))
            found[which + "slope"] = slope
            found[which + "offset"] = slope * wide(getattr(self, which + "midpoint"))
            found[which + "conductance"] = conductance * ops.cast(np.abs(signs), slope.dtype)
            found[which + "potential"] = wide(getattr(self, which + "potential"))
        return found

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
        inputs = {"input": wide(x) * wide(self.input_scale) + wide(self.input_bias)}
        if time_deltas is not None:
            inputs["time"] = time_deltas
        inside = 4 * (self.ode_unfolds + 1) * self._units**2
        v = nonlinear_scan(
            LTCCell(self.ode_unfolds),
            inputs,
            weights=self._constants(),
            initial_state=state,
            fresh_state=self.initial_mixer_state(1, None),
            recompute=time_loop.recomputes(x.shape, inside),
            return_state=return_state,
            mask=mask,
            segment_ids=segment_ids,
        )
        v, state = v if return_state else (v, None)
        y = v[:, :, : self._width] * wide(self.output_scale) + wide(self.output_bias)
        return ops.cast(y, self.compute_dtype), state

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ode_unfolds": self.ode_unfolds,
            "wiring": wiring_config(self.wiring),
        }
