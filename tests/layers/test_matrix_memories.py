"""Matrix memories at their extremes: exponential gates, and features that are small beside 1."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.backend import to_numpy

WIDTH = 16
MEMORIES = ("mlstm", "expanded_mlstm")


def memory(name, drive, bias=0.0):
    """A mixer whose log input gate is `drive` for inputs of 1, and `bias` for inputs of 0."""
    mixer = ek.registry.sequence_mixers.build(name, num_heads=2)
    mixer.build((None, None, WIDTH))
    inputs = mixer.input_gate.kernel.shape[0]
    mixer.input_gate.kernel.assign(np.full((inputs, 2), drive / inputs, "float32"))
    mixer.input_gate.bias.assign(np.full(2, bias, "float32"))
    return mixer


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("drive", (4.0, 90.0, 300.0))
def test_packed_sequences_know_nothing_of_each_others_gates(name, drive, rng, assert_close):
    """What one has written strongly must not overflow where the next one writes weakly."""
    mixer = memory(name, drive)
    x = rng.normal(size=(2, 100, WIDTH)).astype("float32")
    x[:, :50] += 2.0
    x[:, 50:] -= 2.0
    y = to_numpy(mixer(x, segment_ids=np.repeat([[0, 1]], 50, axis=1).repeat(2, axis=0)))
    assert_close(y[:, :50], to_numpy(mixer(x[:, :50])))
    assert_close(y[:, 50:], to_numpy(mixer(x[:, 50:])))


@pytest.mark.parametrize("bias", (0.0, 100.0, 500.0))
def test_a_query_of_zeros_reads_nothing(bias):
    mixer = memory("mlstm", 0.0, bias)
    x = np.ones((1, 70, WIDTH), "float32")
    x[:, 1::2] = 0.0
    assert np.isfinite(to_numpy(mixer(x))).all()


@pytest.mark.trains
def test_a_query_of_zeros_has_a_finite_gradient():
    mixer = memory("mlstm", 0.0, 200.0)
    x = np.ones((1, 5, WIDTH), "float32")
    x[:, 1::2] = 0.0
    total = ek.backend.value_and_grad(lambda x: ek.ops.sum(mixer(x)))
    assert np.isfinite(to_numpy(total(x)[1][0])).all()


@pytest.mark.parametrize("shift", (0.0, -8.0, -12.0, -16.0))
def test_small_elu_features_are_exact(shift, rng, assert_close):
    """`exp(x)` below zero, however small it is beside 1; weights of such keys sum to little."""
    features = ek.layers.EluFeatures()
    x = rng.normal(size=(1, 70, 2, 4)).astype("float32") + np.float32(shift)
    wide = x.astype("float64")
    expected = np.where(wide > 0, wide + 1, np.exp(wide))
    assert np.abs(to_numpy(features(x)) / expected - 1).max() < 1e-6

    mixer = ek.layers.LinearAttention(num_heads=2)
    mixer.build((None, None, 8))
    for projection in (mixer.query, mixer.key):
        projection.kernel.assign(np.eye(8, dtype="float32"))
    x = rng.normal(size=(1, 70, 8)).astype("float32") + np.float32(shift)
    q = to_numpy(features(x.reshape(1, 70, 2, 4))).astype("float64")
    v = to_numpy(mixer.value(x)).reshape(1, 70, 2, 4).astype("float64")
    weights = np.einsum("bthk,bshk->bhts", q, q) * np.tril(np.ones((70, 70)))
    o = np.einsum("bhts,bshv->bthv", weights / weights.sum(-1, keepdims=True), v)
    expected = to_numpy(mixer.output_projection(o.reshape(1, 70, 8).astype("float32")))
    assert_close(to_numpy(mixer(x)), expected, 1e-5)
