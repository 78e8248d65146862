"""S4D as a mixer beside its filter, and its memory."""

import math

import numpy as np
import pytest

import ember_keras as ek


def test_it_is_the_convolution_with_its_filter(rng, assert_close):
    mixer = ek.layers.S4D(state_dim=4)
    x = rng.normal(size=(1, 90, 8)).astype("float32")
    mixer.build(x.shape)
    taps = ek.backend.to_numpy(mixer.filter.taps(90)).astype("float64")
    convolved = [np.convolve(x[0, :, d], taps[:, d])[:90] for d in range(8)]
    y = np.stack(convolved, axis=-1) + ek.backend.to_numpy(mixer.skip) * x[0]
    gelu = 0.5 * y * (1 + np.vectorize(math.erf)(y / 2**0.5))
    kernel, bias = (ek.backend.to_numpy(v) for v in mixer.output_projection.weights)
    value, gate = np.split(gelu @ kernel + bias, 2, axis=-1)
    assert_close(ek.backend.to_numpy(mixer(x))[0], value / (1 + np.exp(-gate)), 1e-5)


def test_its_state_does_not_grow(rng):
    mixer = ek.layers.S4D(state_dim=4)
    x = rng.normal(size=(2, 70, 8)).astype("float32")
    _, state = mixer(x, return_state=True)
    assert [tuple(part.shape) for part in state["mixer"]] == [(2, 8, 4)] * 2


def test_steps_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="min_step < max_step"):
        ek.layers.S4D(min_step=1.0, max_step=0.1)
