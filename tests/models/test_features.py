"""Outputs of blocks by name: the laws of a model, for one that gives a dict of tensors."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.config import ConfigError

import keras  # isort: skip - under mlx after ember_keras

ALL = ["input", "block_0", "block_1", "final"]
OPTIONS = {"width": 8, "blocks": ["lru", "mlp"]}


def _numpy(features):
    return {name: ek.backend.to_numpy(value) for name, value in features.items()}


@pytest.fixture(scope="module")
def model():
    model = ek.models.FeatureExtractor(ALL, **OPTIONS)
    model.build((None, None, 3))
    return model


def test_features_are_what_the_parts_give(model, rng, assert_close):
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    hidden = model.input_map(x)
    expected = {"input": hidden}
    for i, block in enumerate(model.backbone.stack):
        hidden = expected[f"block_{i}"] = block(hidden)
    expected["final"] = model.backbone.final_norm(hidden)
    features = _numpy(model(x))
    assert list(features) == ALL
    for name, value in _numpy(expected).items():
        assert_close(features[name], value, 1e-6)
    spec = model(keras.Input((None, 3)))
    assert {name: tuple(s.shape) for name, s in spec.items()} == dict.fromkeys(ALL, (None, None, 8))


def test_steps_and_chunks_give_what_a_call_gives(model, rng, assert_close):
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    whole = _numpy(model(x))
    first, state = model(x[:, :3], state=model.initial_state(2), return_state=True)
    third, state = model.step(x[:, 3], state)
    last, _ = model.step(x[:, 4], state)
    for name in ALL:
        assert_close(_numpy(first)[name], whole[name][:, :3], 1e-5)
        assert_close(_numpy(third)[name], whole[name][:, 3], 1e-5)
        assert_close(_numpy(last)[name], whole[name][:, 4], 1e-5)


def test_padding_is_not_there_and_packed_sequences_are_apart(model, rng, assert_close):
    x = rng.normal(size=(1, 5, 3)).astype("float32")
    mask = np.array([[False, True, True, True, True]])
    padded, bare = _numpy(model(x, mask=mask)), _numpy(model(x[:, 1:]))
    packed = _numpy(model({"x": x, "segment_ids": np.array([[1, 1, 2, 2, 2]])}))
    alone = _numpy(model(x[:, 2:]))
    for name in ALL:
        assert_close(padded[name][:, 1:], bare[name], 1e-5)
        assert_close(packed[name][:, 2:], alone[name], 1e-5)


def test_it_predicts_with_the_weights_of_a_trained_model_and_is_saved(rng, tmp_path, assert_close):
    x = rng.integers(1, 9, size=(2, 5))
    trained = ek.models.TokenClassifier(3, vocab_size=9, **OPTIONS)
    model = ek.models.FeatureExtractor(["final", "block_0"], vocab_size=9, pad_token=0, **OPTIONS)
    for each in (trained, model):
        each.build((None, None))
    model.input_map.set_weights(trained.input_map.get_weights())
    model.backbone.set_weights(trained.backbone.get_weights())
    features = model.predict(x, verbose=0)
    assert sorted(features) == ["block_0", "final"]
    logits = ek.backend.to_numpy(trained.head(features["final"]))
    assert_close(logits, ek.backend.to_numpy(trained(x)), 1e-5)
    ek.save_model(model, tmp_path / "model.keras")
    again = ek.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    for name, value in _numpy(again(x)).items():
        assert_close(value, features[name], 1e-5)
    config = ek.registry.to_config(model)
    assert ek.registry.to_config(ek.registry.models.build(config)) == config


@pytest.mark.parametrize("outputs", [[], ["final", "final"], ["block_2"], ["logits"]])
def test_names_that_are_not_there_are_refused(outputs):
    with pytest.raises(ValueError, match="'block_0' to 'block_1', and 'final'"):
        ek.models.FeatureExtractor(outputs, **OPTIONS)


def test_what_looks_both_ways_has_features_and_no_state(rng):
    model = ek.models.FeatureExtractor(width=8, blocks=[{"type": "attention", "causal": False}])
    x = rng.normal(size=(1, 3, 2)).astype("float32")
    assert _numpy(model(x))["final"].shape == (1, 3, 8)
    for refused in (lambda: model.initial_state(1), lambda: model(x, return_state=True)):
        with pytest.raises(ValueError, match="bidirectional"):
            refused()


@pytest.mark.once
def test_no_task_trains_it():
    task = ek.registry.tasks.build("compression", length=4, train_samples=2, test_samples=1)
    with pytest.raises(ConfigError, match="dict of features and has no head"):
        ek.pipelines.training.build_model({"type": "feature_extractor"}, task, task.load(0))
