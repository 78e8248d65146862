"""Filters of long convolutions: their taps, tap by tap, against their definition in numpy."""

import tracemalloc

import numpy as np
import pytest
from engines.support import error, fast, finite_differences, rng, trains
from keras import ops

import ember_keras as ek

CHANNELS = 3
KINDS = [
    {"type": "explicit", "num_taps": 50},
    {"type": "decay", "num_taps": 50},
    "implicit",
    "s4d",
    {"type": "rtf", "order": 1},
    {"type": "rtf", "order": 5},
    {"type": "rtf", "order": 40},
]


def built(config, seed=0):
    """A filter with random weights, stable where it has poles."""
    filter = ek.registry.filters.build(config)
    filter.build((CHANNELS,))
    if hasattr(filter, "denominator"):
        a = rng(seed, 1).normal(size=(filter.order, CHANNELS))
        filter.denominator.assign(0.95 * a / np.abs(a).sum(axis=0))
    return filter


def impulse_response(b, a, length):
    """The quotient of two power series, by long division in float64."""
    order, channels = a.shape
    g = np.zeros((length, channels))
    for s in range(length):
        g[s] = float(s == 0)
        for m in range(1, min(order, s) + 1):
            g[s] -= a[m - 1] * g[s - m]
    k = np.zeros((length, channels))
    for s in range(length):
        for m in range(1, min(order, s) + 1):
            k[s] += b[m - 1] * g[s - m]
    return k


def taps_of(filter, length):
    return fast(lambda: filter.taps(length))()


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_a_longer_filter_begins_with_the_shorter_one(config):
    filter = built(config)
    longest = ek.backend.to_numpy(taps_of(filter, 300))
    scale = np.abs(longest).max()
    for length in (1, 2, 63, 100, 257):
        taps = ek.backend.to_numpy(taps_of(filter, length))
        assert taps.shape == (min(length, filter.size or length), CHANNELS)
        assert np.abs(taps - longest[:length]).max() <= 1e-5 * scale


@pytest.mark.parametrize("order", (1, 2, 5, 16, 40))
@pytest.mark.parametrize("length", (1, 2, 63, 100, 257, 2000))
def test_rational_taps_are_the_impulse_response(order, length):
    filter = built({"type": "rtf", "order": order}, seed=order)
    b, a = (ek.backend.to_numpy(w).astype("float64") for w in filter.weights)
    expected = impulse_response(b, a, length)
    if length == 1:
        assert not ek.backend.to_numpy(taps_of(filter, 1)).any()
        return
    assert error(taps_of(filter, length), expected) < 5e-6


def test_slow_rational_poles_hold_their_ring_over_64k_positions():
    """A pair of poles at radius exp(-1e-4): the taps at the end are those of the closed form."""
    filter = built({"type": "rtf", "order": 2})
    radius, angle = np.exp(-1e-4), np.array([0.1, 1.0, 2.5])
    a = np.stack([-2 * radius * np.cos(angle), np.full(CHANNELS, radius**2)])
    filter.denominator.assign(a)
    filter.numerator.assign(np.stack([np.ones(CHANNELS), np.zeros(CHANNELS)]))
    taps = ek.backend.to_numpy(taps_of(filter, 65536))
    assert np.isfinite(taps).all()
    # The poles as they are in float32.
    a = ek.backend.to_numpy(filter.denominator).astype("float64")
    radius = np.sqrt(a[1])
    angle = np.arccos(-a[0] / (2 * radius))
    s = np.arange(1, 20001)[:, None]
    expected = radius ** (s - 1) * np.sin(angle * s) / np.sin(angle)
    assert error(taps[1:20001], expected) < 2e-3


@trains
@pytest.mark.parametrize("order", (1, 5))
def test_rational_gradients_are_finite_differences(order):
    filter = built({"type": "rtf", "order": order})
    weights = [ek.backend.to_numpy(w).astype("float64") for w in filter.weights]
    slope = rng(3).normal(size=(63, CHANNELS))
    weigh = ops.convert_to_tensor(slope.astype("float32"))
    _, found = ek.backend.value_and_grad_variables(
        lambda: ops.sum(filter.taps(63) * weigh), filter.trainable_weights
    )
    for at, gradient in enumerate(found):
        positions = list(np.ndindex(weights[at].shape))

        def loss(moved, at=at):
            b, a = (moved if i == at else w for i, w in enumerate(weights))
            return np.sum(slope * impulse_response(b, a, 63))

        expected = finite_differences(loss, weights[at], positions)
        assert error(gradient, expected.reshape(weights[at].shape)) < 1e-4


def s4d_response(weights, length):
    """The definition of S4D's filter, one mode and position at a time, in float64."""
    log_step, log_decay, frequency, real, imaginary = weights
    k = np.zeros((length, CHANNELS))
    for channel, mode in np.ndindex(log_decay.shape):
        step = np.exp(log_step[channel])
        a = -np.exp(log_decay[channel, mode]) + 1j * frequency[channel, mode]
        c = (real + 1j * imaginary)[channel, mode] * (np.exp(step * a) - 1) / a
        k[:, channel] += [2 * (c * np.exp(step * a * s)).real for s in range(length)]
    return k


def built_s4d(seed, state_dim, min_step=0.001, max_step=0.1):
    """An S4D filter whose random weights are the same on every backend."""
    g, shape = rng(seed, state_dim), (CHANNELS, state_dim)
    filter = built({"type": "s4d", "state_dim": state_dim})
    filter.log_step.assign(g.uniform(np.log(min_step), np.log(max_step), CHANNELS))
    filter.real.assign(g.normal(size=shape))
    filter.imaginary.assign(g.normal(size=shape))
    return filter


@pytest.mark.parametrize("length", (1, 2, 63, 64, 65, 97, 257, 2000))
def test_s4d_taps_are_the_impulse_response(length):
    filter = built_s4d(0, 5, max_step=0.5)
    weights = [ek.backend.to_numpy(w).astype("float64") for w in filter.weights]
    assert error(taps_of(filter, length), s4d_response(weights, length)) < 2e-6


@pytest.mark.parametrize("memory", (0.5, 1e-4))
def test_s4d_taps_hold_their_rhythm_over_64k_positions(memory):
    """Angles up to 50 thousand radians, beside the same modes in float64."""
    filter = built_s4d(1, 8, min_step=0.01)
    filter.log_decay.assign(np.full((CHANNELS, 8), np.log(memory)))
    taps = filter.taps(65536)
    a, c = ([ek.backend.to_numpy(x).astype("float64") for x in pair] for pair in filter.modes())
    s = np.arange(65536)[:, None, None]
    expected = np.sum(((c[0] + 1j * c[1]) * np.exp((a[0] + 1j * a[1]) * s)).real, axis=-1)
    assert error(taps, expected) < 2e-6


def test_slow_s4d_modes_keep_their_input_weight():
    """A step of 1e-5, over which a mode decays by less than the rounding of numbers near 1."""
    filter = built_s4d(2, 4, 1e-5, 1.1e-5)
    weights = [ek.backend.to_numpy(w).astype("float64") for w in filter.weights]
    assert error(taps_of(filter, 100), s4d_response(weights, 100)) < 2e-6


@trains
@pytest.mark.parametrize("length", (1, 63, 131))
def test_s4d_gradients_are_finite_differences(length):
    filter = built_s4d(3, 3, 0.1, 0.5)
    weights = [ek.backend.to_numpy(w).astype("float64") for w in filter.weights]
    slope = rng(3).normal(size=(length, CHANNELS))
    weigh = ops.convert_to_tensor(slope.astype("float32"))
    _, found = ek.backend.value_and_grad_variables(
        lambda: ops.sum(filter.taps(length) * weigh), filter.trainable_weights
    )
    for at, gradient in enumerate(found):

        def loss(moved, at=at):
            given = [moved if i == at else w for i, w in enumerate(weights)]
            return np.sum(slope * s4d_response(given, length))

        expected = finite_differences(loss, weights[at], list(np.ndindex(weights[at].shape)))
        assert error(gradient, expected.reshape(weights[at].shape)) < 2e-5, at


def test_s4d_taps_make_no_array_of_every_position_and_mode():
    if ek.backend.name() != "numpy":
        pytest.skip("only numpy tells Python of its memory")
    filter = ek.layers.S4DFilter(state_dim=64)
    filter.build((CHANNELS,))
    tracemalloc.start()
    filter.taps(16384)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16384 * CHANNELS * 64 * 4 / 3


def test_decay_taps_are_weights_under_a_window_of_unit_energy():
    filter = built({"type": "decay", "num_taps": 40})
    w, log_rate = (ek.backend.to_numpy(x).astype("float64") for x in filter.weights)
    rate = np.exp(log_rate)
    s = np.arange(40)[:, None]
    window = np.sqrt(1 - np.exp(-2 * rate)) * np.exp(-rate * s)
    assert error(filter.taps(100), window * w) < 1e-6
    assert np.abs(np.sum(window**2, axis=0) - 1).max() < 1e-3
    assert rate[0] > 50 * rate[-1]


@pytest.mark.parametrize(
    "config",
    (
        {"type": "decay", "num_taps": 0},
        {"type": "decay", "fast_decay": 0.0},
        {"type": "rtf", "order": 0},
    ),
    ids=str,
)
def test_bad_filters_are_refused(config):
    with pytest.raises(ValueError, match="received"):
        ek.registry.filters.build(config)
