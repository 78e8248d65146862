"""Rotary positions far from the start, in `apply_rotary` and in `Retention`."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.layers.common import apply_rotary

from keras import ops  # isort: skip - under mlx after ember_keras


@pytest.mark.parametrize("width", (6, 7))
@pytest.mark.parametrize("start", (0, 16000, 65500))
def test_angles_are_exact_at_any_position(width, start, rng):
    x = rng.normal(size=(2, 5, 1, width)).astype("float32")
    positions = start + np.arange(10).reshape(2, 5).astype("int32")
    half = width // 2
    angle = positions[:, :, None, None] * 10000.0 ** -(np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half : 2 * half]) * np.exp(1j * angle)
    expected = np.concatenate([turned.real, turned.imag, x[..., 2 * half :]], axis=-1)
    got = ek.backend.to_numpy(apply_rotary(ops.convert_to_tensor(x), positions, 10000.0))
    assert got.dtype == "float32" and got.shape == x.shape
    assert np.abs(got - expected).max() < 2e-6 * np.abs(x).max()


def test_retention_sees_distances_alone_at_any_position(rng, assert_close):
    """A sequence that begins at position 65000 is the one that begins at 0, in chunks and steps."""
    mixer = ek.layers.Retention(num_heads=2)
    x = rng.normal(size=(2, 12, 16)).astype("float32")
    expected = ek.backend.to_numpy(mixer(x))
    state = mixer.initial_state(2)
    state["mixer"]["length"] = ops.full((2,), 65000, "int32")
    outputs = []
    for first, last in ((0, 7), (7, 8), (8, 10)):
        y, state = mixer(x[:, first:last], state=state, return_state=True)
        outputs.append(ek.backend.to_numpy(y))
    for t in (10, 11):
        y, state = mixer.step(x[:, t], state)
        outputs.append(ek.backend.to_numpy(y)[:, None])
    assert_close(np.concatenate(outputs, axis=1), expected, 5e-6)


def test_retention_in_float64(rng):
    if not ek.backend.capabilities().float64:
        pytest.skip("this backend computes in float32")
    mixer = ek.layers.Retention(num_heads=2, dtype="float64")
    x = rng.normal(size=(2, 9, 16))
    y, state = mixer(x, return_state=True)
    after, _ = mixer.step(x[:, 0], state)
    assert y.shape == x.shape and after.shape == (2, 16)
    assert np.isfinite(ek.backend.to_numpy(y)).all()
