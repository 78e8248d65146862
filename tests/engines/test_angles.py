"""Multiples of an angle, less whole turns, against float64."""

import numpy as np
import pytest
from engines.support import gradients, rng, trains
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines import angles

PLACES = (0, 1, 63, 16000, 65535)


def on_the_circle(angle):
    return np.exp(1j * backend.to_numpy(angle).astype("float64"))


@pytest.mark.parametrize("times", PLACES)
def test_multiples_are_exact_to_the_rounding_of_the_last_turn(times):
    x = rng(1).uniform(-25, 25, size=500).astype("float32")
    expected = np.exp(1j * x.astype("float64") * times)
    tensors = ops.convert_to_tensor(x), ops.convert_to_tensor(times, "int32")
    got = angles.multiple(angles.parts(tensors[0]), tensors[1])
    assert np.abs(on_the_circle(got) - expected).max() < 3e-6


@pytest.mark.parametrize("times", PLACES)
def test_multiples_of_constants_do_not_round_the_constant(times):
    x = rng(2).uniform(-3, 3, size=500)
    parts = angles.constant_parts(x, "float32")
    got = angles.multiple(parts, ops.convert_to_tensor(times, "int32"))
    assert np.abs(on_the_circle(got) - np.exp(1j * x * times)).max() < 2e-6


def test_turned_takes_off_whole_turns():
    x = rng(3).uniform(0, 2e5, size=500).astype("float32")
    got = angles.turned(ops.convert_to_tensor(x))
    assert np.abs(on_the_circle(got) - np.exp(1j * x.astype("float64"))).max() < 5e-7
    assert np.abs(backend.to_numpy(got)).max() < 3.15


@trains
def test_the_gradient_is_the_number_of_times():
    x = rng(4).uniform(-9, 9, size=(6, 1)).astype("float32")
    times = np.array([0, 1, 7, 16000, 65535, 10**6], "int32")

    def run(x):
        return angles.multiple(angles.parts(x), ops.convert_to_tensor(times))

    found = gradients(run, "x", (x,), np.eye(6, dtype="float32"))
    np.testing.assert_allclose(backend.to_numpy(found["x"])[:, 0], times, rtol=1e-6)
