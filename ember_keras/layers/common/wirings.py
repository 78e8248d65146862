"""Wirings of liquid networks: which neuron hears which, and with which sign.

A wiring is built from data, and draws its synapses from its own seed with numpy's frozen generator,
so that it is the same on every machine: it is not saved with the weights.

Neurons are numbered with the motor neurons, which are the outputs, first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ember_keras import registry


@dataclasses.dataclass(frozen=True)
class Synapses:
    """A wiring drawn for some numbers of inputs and outputs.

    Attributes:
        sensory: int array `(inputs, units)`: 1, -1, or 0 where there is no synapse.
        recurrent: int array `(units, units)`, from the row's neuron to the column's.
        layers: tuple of tuples of int, the neurons in the order in which a signal passes them; the
            motor neurons are in the last.
    """

    sensory: np.ndarray
    recurrent: np.ndarray
    layers: tuple[tuple[int, ...], ...]


class Wiring:
    """What all wirings share: `draw` and `get_config`."""

    units: int | None

    def draw(self, inputs: int, outputs: int) -> Synapses:
        """The synapses between `inputs` features, the neurons, and `outputs` of the neurons."""
        raise NotImplementedError(f"`{type(self).__name__}` draws no synapses.")

    def get_config(self) -> dict[str, Any]:
        """The arguments that build the same wiring again."""
        return {p.name: getattr(self, p.name) for p in registry.own_parameters(type(self))}

    def _units(self, default: int, outputs: int) -> int:
        units = self.units or default
        if units < outputs:
            raise ValueError(
                f"`{type(self).__name__}` received units={units} and {outputs} outputs, expected "
                "at least as many units. Raise units, or leave it None."
            )
        return units


def _polarity(rng: np.random.RandomState, shape: Any, excitatory: float) -> np.ndarray:
    return np.where(rng.random_sample(shape) < excitatory, 1, -1)


def _check_sparsity(wiring: Wiring, sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"`{type(wiring).__name__}` received sparsity={sparsity}, expected in [0, 1)."
        )


def _check_units(wiring: Wiring, units: int | None) -> None:
    if units is not None and units < 1:
        raise ValueError(
            f"`{type(wiring).__name__}` received units={units}, expected at least 1, or None."
        )


@registry.wirings.register("full")
class FullWiring(Wiring):
    """Every neuron hears every input and every neuron; two thirds of the synapses excite.

    Args:
        units: int or None. The number of neurons; as many as outputs when None.
        seed: int. Of the signs.
    """

    def __init__(self, units: int | None = None, seed: int = 0):
        _check_units(self, units)
        self.units = units
        self.seed = seed

    def draw(self, inputs: int, outputs: int) -> Synapses:
        units = self._units(outputs, outputs)
        rng = np.random.RandomState(self.seed)
        recurrent = _polarity(rng, (units, units), 2 / 3)
        sensory = _polarity(rng, (inputs, units), 2 / 3)
        return Synapses(sensory, recurrent, (tuple(range(units)),))


@registry.wirings.register("random")
class RandomWiring(Wiring):
    """A part of all synapses, drawn at random; two thirds of them excite.

    Args:
        units: int or None. The number of neurons; as many as outputs when None.
        sparsity: float in [0, 1). The part of the synapses that is left out.
        seed: int. Of synapses and signs.
    """

    def __init__(self, units: int | None = None, sparsity: float = 0.5, seed: int = 0):
        _check_units(self, units)
        _check_sparsity(self, sparsity)
        self.units = units
        self.sparsity = sparsity
        self.seed = seed

    def draw(self, inputs: int, outputs: int) -> Synapses:
        units = self._units(outputs, outputs)
        rng = np.random.RandomState(self.seed)

        def some(rows: int) -> np.ndarray:
            present = np.zeros(rows * units, int)
            present[rng.permutation(rows * units)[: round(rows * units * (1 - self.sparsity))]] = 1
            return present.reshape(rows, units) * _polarity(rng, (rows, units), 2 / 3)

        recurrent = some(units)
        return Synapses(some(inputs), recurrent, (tuple(range(units)),))


@registry.wirings.register("ncp")
class NCPWiring(Wiring):
    """A neural circuit policy: inputs, inter, command and motor neurons, sparsely in that order.

    Only command neurons have synapses among themselves (Lechner et al. 2020, Nature Machine
    Intelligence 2, neural circuit policies). The numbers of neurons and synapses follow from
    `units` and `sparsity` as in the authors' automatic form: 2 of 5 neurons that are not motor
    neurons are command neurons, and a neuron reaches `1 - sparsity` of the next layer.

    Args:
        units: int or None. The number of neurons, at least 2 more than outputs; twice the outputs,
            or 3 more than outputs where that is more, when None.
        sparsity: float in [0, 1). The part of the synapses between layers that is left out.
        seed: int. Of synapses and signs.
    """

    def __init__(self, units: int | None = None, sparsity: float = 0.5, seed: int = 0):
        _check_units(self, units)
        _check_sparsity(self, sparsity)
        self.units = units
        self.sparsity = sparsity
        self.seed = seed

    def draw(self, inputs: int, outputs: int) -> Synapses:
        units = self.units or max(2 * outputs, outputs + 3)
        if units < outputs + 2:
            raise ValueError(
                f"`NCPWiring` received units={units} and {outputs} outputs, expected at least "
                f"{outputs + 2}: one inter and one command neuron. Raise units."
            )
        rng, density = np.random.RandomState(self.seed), 1 - self.sparsity
        others = units - outputs
        num_command = max(int(0.4 * others), 1)
        motor = np.arange(outputs)
        command = np.arange(outputs, outputs + num_command)
        inter = np.arange(outputs + num_command, units)
        sensory = np.zeros((inputs, units), int)
        recurrent = np.zeros((units, units), int)

        def reach(size: int) -> int:
            return max(int(size * density), 1)

        _connect(rng, sensory, np.arange(inputs), inter, reach(len(inter)))
        _connect(rng, recurrent, inter, command, reach(num_command))
        for _ in range(max(int(2 * num_command * density), 1)):
            pair = rng.choice(command), rng.choice(command)
            recurrent[pair] = _polarity(rng, (), 0.5)
        # From a motor neuron's side: it hears some of the command neurons.
        heard = np.zeros((units, units), int)
        _connect(rng, heard, motor, command, reach(num_command))
        return Synapses(
            sensory, recurrent + heard.T, tuple(tuple(map(int, n)) for n in (inter, command, motor))
        )


def _connect(rng: np.random.RandomState, matrix: Any, sources: Any, targets: Any, fan: int) -> None:
    """Gives every source `fan` synapses to targets, and every target that got none a fair few."""
    for source in sources:
        for target in rng.permutation(targets)[:fan]:
            matrix[source, target] = _polarity(rng, (), 0.5)
    mean = min(max(len(sources) * fan // len(targets), 1), len(sources))
    for target in targets:
        if not matrix[sources, target].any():
            for source in rng.permutation(sources)[:mean]:
                matrix[source, target] = _polarity(rng, (), 0.5)


@registry.wirings.register("explicit")
class ExplicitWiring(Wiring):
    """A wiring that is written down: 1, -1, or 0 where there is no synapse.

    Args:
        sensory: list of lists of int, from each input to each neuron.
        recurrent: list of lists of int, from each neuron to each neuron.
        layers: list of lists of int, or None. The neurons in the order in which a signal passes
            them, with the motor neurons, 0 to D - 1, in the last layer; all in one layer when None.
    """

    def __init__(
        self,
        sensory: list[list[int]],
        recurrent: list[list[int]],
        layers: list[list[int]] | None = None,
    ):
        self.sensory = [[int(sign) for sign in row] for row in sensory]
        self.recurrent = [[int(sign) for sign in row] for row in recurrent]
        self.layers = None if layers is None else [[int(n) for n in layer] for layer in layers]
        self.units = units = len(self.recurrent)
        widths = {len(row) for row in [*self.sensory, *self.recurrent]}
        if widths != {units}:
            raise ValueError(
                f"`ExplicitWiring` received {self.units} rows in recurrent and rows of "
                f"{sorted(widths)} numbers, expected one number a neuron in every row."
            )
        flat = sorted(n for layer in self.layers or [] for n in layer)
        if self.layers is not None and flat != list(range(units)):
            raise ValueError(
                f"`ExplicitWiring` received layers of the neurons {flat}, expected each of the "
                f"{self.units} neurons once."
            )

    def draw(self, inputs: int, outputs: int) -> Synapses:
        units = len(self.recurrent)
        if inputs != len(self.sensory) or outputs > units:
            raise ValueError(
                f"`ExplicitWiring` has {len(self.sensory)} inputs and {units} neurons; "
                f"received {inputs} inputs and {outputs} outputs. Write it for this width."
            )
        layers = self.layers or [list(range(units))]
        missing = sorted(set(range(outputs)) - set(layers[-1]))
        if missing:
            raise ValueError(
                f"`ExplicitWiring` received {outputs} outputs and a last layer of the neurons "
                f"{layers[-1]}; expected the motor neurons, 0 to {outputs - 1}, in it, and "
                f"{missing} are not. Number the outputs first, and put them into the last layer."
            )
        return Synapses(
            np.array(self.sensory),
            np.array(self.recurrent),
            tuple(tuple(layer) for layer in layers),
        )
