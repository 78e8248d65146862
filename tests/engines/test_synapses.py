"""The sums over synapses, and their gradient, are those of the formula."""

import numpy as np
import pytest
from engines.support import error, normal, rng, trains
from keras import ops

from ember_keras import backend
from ember_keras.ops.kernels.synapses import synapses

NAMES = ("v", "slope", "offset", "current", "conductance")


def inputs():
    g = rng(5)
    return [normal(g, 3, 7), *(normal(g, 7, 6) for _ in NAMES[1:])]


def formula(v, slope, offset, *weights):
    opened = 1 / (1 + np.exp(offset - v[:, :, None] * slope))
    return opened, [np.sum(opened * weight, axis=1) for weight in weights]


SETTINGS = pytest.mark.parametrize("setting", ("auto", "portable"))


@SETTINGS
def test_the_sums_are_those_of_the_formula(setting, monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", setting)
    given = inputs()
    v, slope, offset, *weights = (ops.convert_to_tensor(x) for x in given)
    found = synapses(v, slope, offset, tuple(weights))
    _, expected = formula(*(x.astype("float64") for x in given))
    assert max(error(*pair) for pair in zip(found, expected, strict=True)) < 1e-6


@trains
@SETTINGS
def test_the_gradients_are_those_of_the_formula(setting, monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", setting)
    given, g = inputs(), rng(6)
    slopes = [normal(g, 3, 6) for _ in range(2)]

    def loss(v, slope, offset, *weights):
        found = synapses(v, slope, offset, weights)
        return sum(ops.sum(ops.multiply(x, by)) for x, by in zip(found, slopes, strict=True))

    tensors = [ops.convert_to_tensor(x) for x in given]
    found = backend.compile(backend.value_and_grad(loss))(*tensors)[1]
    v, slope, offset, *weights = (x.astype("float64") for x in given)
    opened, _ = formula(v, slope, offset, *weights)
    down = sum(by[:, None] * weight for by, weight in zip(slopes, weights, strict=True))
    down = down * opened * (1 - opened)
    expected = [
        np.sum(down * slope, axis=2),
        np.sum(down * v[:, :, None], axis=0),
        -np.sum(down, axis=0),
        *(np.sum(opened * by[:, None], axis=0) for by in slopes),
    ]
    for name, one, other in zip(NAMES, found, expected, strict=True):
        assert error(one, other) < 1e-6, name
