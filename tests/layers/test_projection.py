"""A projection is Keras's dense layer, however the kernel table runs its product."""

import numpy as np
import pytest

import ember_keras as ek  # before Keras
from ember_keras.layers.common.projection import Projection

import keras  # isort: skip
from laws.support import gradients  # isort: skip

FLAT = ek.backend.name() in ("jax", "tensorflow")


def pair(shape, units=5, **options):
    keras.utils.set_random_seed(0)
    own, plain = Projection(units, **options), keras.layers.Dense(units, **options)
    own.build(shape)
    plain.build(shape)
    plain.set_weights(own.get_weights())
    return own, plain


@pytest.fixture
def flattened(monkeypatch):
    """The shapes that the kernel was called with."""
    seen = []
    (kernel,) = ek.ops.kernels.kernels("positions")
    run = kernel.run
    object.__setattr__(kernel, "run", lambda f, x: (seen.append(tuple(x.shape)), run(f, x))[1])
    yield seen
    object.__setattr__(kernel, "run", run)


@pytest.mark.parametrize("shape", [(3, 4), (2, 7, 4), (2, 3, 7, 4), (0, 7, 4), (2, 0, 4)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_dense(shape, use_bias, rng, assert_close, flattened):
    own, plain = pair(shape, activation="gelu", use_bias=use_bias)
    x = rng.normal(size=shape).astype("float32")
    y = own(x)
    assert tuple(y.shape) == (*shape[:-1], 5)
    assert_close(ek.backend.to_numpy(y), ek.backend.to_numpy(plain(x)), 1e-6)
    assert bool(flattened) == (FLAT and len(shape) > 2)


@pytest.mark.trains
def test_gradients_equal_those_of_dense(rng, assert_close):
    own, plain = pair((2, 7, 4))
    x, slope = (rng.normal(size=(2, 7, n)).astype("float32") for n in (4, 5))
    (weights, of_x), (expected, of_x_expected) = (
        gradients(layer, x, slope) for layer in (own, plain)
    )
    for one, other in zip([*weights, of_x], [*expected, of_x_expected], strict=True):
        assert_close(ek.backend.to_numpy(one), ek.backend.to_numpy(other), 1e-6)


@pytest.mark.trains
def test_lengths_and_batches_that_are_unknown(rng):
    model = keras.Sequential([keras.Input((None, 4)), Projection(5)])
    assert model.output_shape == (None, None, 5)
    model.compile("sgd", "mse")
    for rows, time in ((2, 7), (3, 9)):
        x = rng.normal(size=(rows, time, 4)).astype("float32")
        model.train_on_batch(x, np.zeros((rows, time, 5), "float32"))
        assert model.predict(x, verbose=0).shape == (rows, time, 5)


def test_half_precision_is_kept():
    layer = Projection(5, dtype="mixed_bfloat16")
    y = layer(np.ones((2, 3, 4), "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"


def test_what_is_asked_for_by_name_refuses_with_a_reason(monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", "flat_positions")
    layer = Projection(5)
    layer.build((2, 4))
    with pytest.raises(ValueError, match="one axis as they are|runs on jax, tensorflow"):
        layer(np.ones((2, 4), "float32"))
    reasons = {row.kernel: row.reason for row in ek.ops.kernels.explain("positions", device="gpu")}
    assert "cpu" in reasons["flat_positions"] or not FLAT
