"""The figure of what routers do while a model trains."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

pytest.importorskip("matplotlib")


def _model(blocks):
    model = ek.models.SequenceRegressor(width=8, blocks=blocks)
    model.compile("sgd", "mse")
    return model


@pytest.mark.trains
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_it_draws_the_loads_of_every_mixture(suffix, rng, tmp_path):
    keras.utils.set_random_seed(0)
    model = _model(["moe", {"type": "moe", "num_experts": 3, "top_k": 1}])
    x, y = rng.normal(size=(8, 5, 1)), rng.normal(size=(8, 1))
    path = tmp_path / "new" / f"routers{suffix}"
    report = ek.callbacks.RouterReport(path, every=2)
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[report])
    assert [use.shape for use in report.loads().values()] == [(4, 8), (4, 3)]
    for use in report.loads().values():
        np.testing.assert_allclose(use.sum(axis=1), 1.0, rtol=1e-5)
    head = path.read_bytes()[:300]
    assert head.startswith(b"\x89PNG") if suffix == ".png" else b"<svg" in head or b"<?xml" in head
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.trains
def test_a_model_without_mixtures_is_refused(rng, tmp_path):
    report = ek.callbacks.RouterReport(tmp_path / "routers.png")
    with pytest.raises(ValueError, match="without a `MixtureOfExperts`"):
        _model(["mlp"]).fit(np.ones((2, 3, 1)), np.ones((2, 1)), verbose=0, callbacks=[report])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"ends in \.png"):
        ek.callbacks.RouterReport("routers.jpeg")
    with pytest.raises(ValueError, match="every=0"):
        ek.callbacks.RouterReport("routers.png", every=0)
