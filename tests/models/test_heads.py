"""What the heads compute beside the laws."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras


def _run(model, x, **options):
    return ek.backend.to_numpy(model(x, **options))


def test_quantiles_never_cross(rng):
    model = ek.models.Forecaster(3, 2, [0.1, 0.3, 0.5, 0.9], width=8, blocks=["lru"])
    y = _run(model, 10 * rng.normal(size=(4, 6, 2)).astype("float32"))
    assert y.shape == (4, 3, 2, 4) and (np.diff(y, axis=-1) > 0).all()


def test_the_pinball_loss_is_its_equation_and_least_at_the_quantile(rng, assert_close):
    y = rng.normal(size=(500, 1, 1)).astype("float32")
    quantiles = [0.2, 0.9]
    loss = ek.models.PinballLoss(quantiles)
    z = np.broadcast_to(np.array([0.3, 1.0], "float32"), (500, 1, 1, 2))
    error = y[..., None] - z
    q = np.array(quantiles)
    expected = np.mean(np.maximum(q * error, (q - 1) * error))
    assert_close(float(loss(y, z)), expected)
    best = np.quantile(y, quantiles).astype("float32")
    losses = [float(loss(y, np.broadcast_to(best + d, z.shape))) for d in (-0.2, 0.0, 0.2)]
    assert losses[1] == min(losses)


def test_the_pinball_loss_is_saved_with_its_model(tmp_path, backend):
    model = ek.models.Forecaster(2, width=8, blocks=["lru"], quantiles=[0.5, 0.8])
    model.build((None, 5, 1))
    model.compile("sgd", ek.models.PinballLoss(model.quantiles))
    ek.save_model(model, tmp_path / "model.keras")
    again = ek.load_model(tmp_path / "model.keras")
    assert again.loss.quantiles == [0.5, 0.8] and again.quantiles == [0.5, 0.8]


def test_targets_at_padding_change_no_loss_of_an_autoencoder(rng, assert_close):
    model = ek.models.Autoencoder(9, 8, blocks=["dense"], pad_token=0)
    model.build((None, 6))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = rng.integers(1, 9, size=(3, 6)).astype("int32")
    x[0, 4:] = 0
    other = np.where(x == 0, 5, x)
    assert_close(model.evaluate(x, other, 3, 0), model.evaluate(x, x, 3, 0), 1e-6)


def test_an_autoencoder_restores_from_the_last_vector_alone(rng, assert_close):
    model = ek.models.Autoencoder(9, 8, blocks=["dense"])  # Blocks that look at one position.
    x = rng.integers(0, 9, size=(2, 6))
    y = _run(model, x)
    other = x.copy()
    other[:, :-1] = rng.integers(0, 9, size=(2, 5))
    assert_close(_run(model, other), y, 1e-6)
    other[:, -1] = (x[:, -1] + 1) % 9
    assert np.abs(_run(model, other) - y).max() > 1e-3
    assert np.abs(np.diff(y, axis=1)).max() > 1e-3  # Positions differ.


def test_a_masked_model_sees_both_ways_and_ties_its_embedding(rng):
    model = ek.models.MaskedLM(11, 8)
    x = rng.integers(0, 11, size=(1, 6))
    y = _run(model, x)
    x[0, 5] = (x[0, 5] + 1) % 11
    assert np.abs(_run(model, x)[0, 0] - y[0, 0]).max() > 1e-5
    paths = [w.path for w in model.weights]
    assert sum("embedding" in path for path in paths) == 1


def test_a_dict_of_inputs_needs_no_mask(rng, assert_close):
    x, ids = rng.integers(0, 9, size=(1, 5)), np.array([[1, 1, 2, 2, 2]])
    options = {"width": 8, "blocks": ["lru"], "vocab_size": 9}
    for model in (ek.models.TokenClassifier(3, **options), ek.models.CausalLM(**options)):
        assert_close(_run(model, {"x": x}), _run(model, x), 1e-6)
        assert_close(_run(model, {"x": x, "segment_ids": ids}), _run(model, x, segment_ids=ids))
    model = ek.models.SequenceClassifier(3, **options)
    assert_close(_run(model, {"x": x}), _run(model, x), 1e-6)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ek.models.Forecaster(0), "horizon=0, expected at least 1"),
        (lambda: ek.models.Forecaster(quantiles=[]), r"quantiles=\[\], expected rising"),
        (lambda: ek.models.Forecaster(quantiles=[0.5, 0.1]), "expected rising"),
        (lambda: ek.models.PinballLoss([1.0]), "`PinballLoss` received"),
        (lambda: ek.models.TokenClassifier(0), "num_classes=0"),
        (lambda: ek.models.MaskedLM(0), "vocab_size=0"),
        (lambda: ek.models.Autoencoder(width=0), "width=0"),
        (lambda: ek.models.TokenClassifier(vocab_size=4)(np.ones((1, 3), "float32")), "integers"),
    ],
)
def test_what_cannot_be_built_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_forecast_from_the_last_value(rng, assert_close):
    """One model, its forecasts told apart by the last real value alone."""
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    mask = np.array([[True] * 5, [True] * 4 + [False]])
    options = {"num_outputs": 3, "width": 8, "blocks": ["lru"]}
    plain, added = (ek.models.Forecaster(2, from_last=each, **options) for each in (False, True))
    last = np.stack([x[0, 4], x[1, 3]])[:, None, :, None]
    for model in (plain, added):
        model.build((None, None, 3))
    added.set_weights(plain.get_weights())
    assert_close(_run(added, x, mask=mask), _run(plain, x, mask=mask) + last, 1e-6)
    with pytest.raises(ValueError, match="from_last=True and an input of 2 features, expected num"):
        ek.models.Forecaster(from_last=True).build((None, None, 2))


@pytest.mark.trains
def test_a_forecaster_learns_a_level(rng):
    keras.utils.set_random_seed(0)
    model = ek.models.Forecaster(2, width=8, blocks=["lru"])
    x = rng.normal(size=(32, 4, 1)).astype("float32")
    y = np.ones((32, 2, 1), "float32")
    model.compile(keras.optimizers.Adam(0.03), ek.models.PinballLoss(model.quantiles))
    losses = model.fit(x, y, epochs=12, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
