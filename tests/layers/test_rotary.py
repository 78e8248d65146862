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


def test_scaled_turns_keep_the_fast_and_slow_the_slow(rng, assert_close):
    from ember_keras.layers.common.rotary import frequencies

    plain = frequencies(8, 500.0)
    np.testing.assert_allclose(frequencies(8, 500.0, {"factor": 4.0}), plain / 4)
    scaling = {
        "factor": 8.0,
        "low_frequency_factor": 1.0,
        "high_frequency_factor": 4.0,
        "original_length": 64.0,
    }
    scaled, turns = frequencies(8, 500.0, scaling), 64 * plain / (2 * np.pi)
    np.testing.assert_allclose(scaled[turns > 4], plain[turns > 4])
    np.testing.assert_allclose(scaled[turns < 1], plain[turns < 1] / 8)
    between = (turns > 1) & (turns < 4)
    assert between.any() and (scaled < plain)[between].all() and (scaled > plain / 8)[between].all()
    x = rng.normal(size=(1, 3, 1, 8)).astype("float32")
    positions = np.arange(3, dtype="int32")[None]
    part = apply_rotary(ops.convert_to_tensor(x), positions, 100.0, {"factor": 2.0}, channels=4)
    alone = apply_rotary(ops.convert_to_tensor(x[..., :4]), positions, 100.0, {"factor": 2.0})
    expected = np.concatenate([ek.backend.to_numpy(alone), x[..., 4:]], axis=-1)
    assert_close(ek.backend.to_numpy(part), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rotary_fraction": 0.0}, "rotary_fraction=0.0, expected more than 0"),
        ({"rotary_scaling": {"factr": 2.0}}, "the keys factr, expected `factor` alone"),
        ({"rotary_scaling": {}}, "the keys .none., expected `factor` alone"),
        ({"rotary_scaling": {"factor": -1.0}}, "expected numbers above 0"),
        (
            {
                "rotary_scaling": {
                    "factor": 2.0,
                    "low_frequency_factor": 4.0,
                    "high_frequency_factor": 4.0,
                    "original_length": 16.0,
                }
            },
            "expected a low_frequency_factor below",
        ),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        ek.layers.Attention(**options)
