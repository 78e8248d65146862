"""The loss in chunks of positions: the losses, metrics and gradients of all logits at once."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

V, B, T = 13, 4, 7
BLOCKS = ["gated_mlp", "min_gru"]
MODELS = {
    "tied": {"type": "causal_lm", "vocab_size": V, "pad_token": 0},
    "capped": {"type": "causal_lm", "vocab_size": V, "logit_cap": 2.0, "tie_embeddings": False},
    "half": {"type": "causal_lm", "vocab_size": V, "dtype": "mixed_bfloat16"},
    "masked_lm": {"type": "masked_lm", "vocab_size": V, "blocks": BLOCKS, "dropout": 0.0},
    "classifier": {"type": "token_classifier", "vocab_size": 9, "num_classes": V, "pad_token": 0},
}


class TargetSum(keras.metrics.Sum):
    """A metric that is no mean: the sum of the logits of the targets."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds what a batch, or a chunk of it, has."""
        y_true = keras.ops.reshape(y_true, keras.ops.shape(y_pred)[:2])
        own = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), V) * y_pred
        if sample_weight is not None:
            own = own * sample_weight[..., None]
        return super().update_state(keras.ops.reshape(own, (-1, V)) * V)


def _pair(name, chunk=3):
    models = []
    for loss_chunk in (None, chunk):
        config = {
            "width": 8,
            "blocks": BLOCKS,
            **MODELS[name],
            "loss_chunk": loss_chunk,
            "name": "lm",
        }
        models.append(ek.registry.models.get(config.pop("type"))(**config))
        models[-1].build((B, T))
    models[1].set_weights(models[0].get_weights())
    return models


def _data(rng):
    x = rng.integers(1, 9, (B, T)).astype("int32")
    x[1, 5:] = 0
    weights = rng.uniform(0.2, 1.0, (B, T)).astype("float32")
    return x, rng.integers(0, V, (B, T)).astype("int32"), weights


def _compile(model, optimizer="sgd", **options):
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        weighted_metrics=[
            keras.metrics.SparseCategoricalCrossentropy(
                from_logits=True, name="cross_entropy", ignore_class=options.get("ignore_class")
            ),
            TargetSum(name="sum_of_targets"),
        ],
    )


@pytest.mark.trains
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_all_logits_at_once(name, rng, assert_close):
    x, y, weights = _data(rng)
    seen, moved = [], []
    for model in _pair(name):
        before = model.get_weights()
        _compile(model, keras.optimizers.SGD(1.0))
        seen.append(model.fit(x, y, B, sample_weight=weights, verbose=0).history)
        after = model.get_weights()
        moved.append([a - b for a, b in zip(after, before, strict=True)])
    assert set(seen[0]) == set(seen[1]) >= {"loss", "accuracy", "cross_entropy"}
    # Under jax XLA may leave out a rounding to bfloat16, and does so in other places.
    near, far = (1e-2, 1e-2) if name == "half" else (2e-6, 1e-5)
    for key in seen[0]:
        assert_close(seen[1][key], seen[0][key], near, key)
    scale = max(np.abs(each).max() for each in moved[0])
    for want, have in zip(*moved, strict=True):
        assert np.abs(want - have).max() <= far * scale


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_evaluation_is_that_of_all_logits_at_once(chunk, rng, assert_close):
    x, y, weights = _data(rng)
    results = []
    for model in _pair("tied", chunk):
        _compile(model, ignore_class=3, reduction="mean_with_sample_weight")
        results.append(model.evaluate(x, y[..., None], 2, 0, weights, return_dict=True))
    assert_close(list(results[1].values()), list(results[0].values()), 1e-6)
    assert list(results[0]) == list(results[1])


def test_logits_are_given_outside_of_a_step(rng, assert_close):
    x, y, _ = _data(rng)
    plain, model = _pair("tied")
    _compile(model)
    model.evaluate(x, y, B, 0)
    assert_close(model.predict(x, verbose=0), ek.backend.to_numpy(plain(x)), 1e-6)


@pytest.mark.trains
def test_the_head_itself_is_never_called(rng, monkeypatch):
    x, y, _ = _data(rng)
    model = _pair("capped")[1]
    own = model.embedding.call

    def call(inputs, reverse=False):
        assert not reverse, "The logits of all positions were made."
        return own(inputs)

    _compile(model)
    model.evaluate(x, y, B, verbose=0)  # Keras has by now asked for the shapes of everything.
    monkeypatch.setattr(model.embedding, "call", call)
    model.fit(x, y, B, verbose=0)


def test_it_is_a_part_of_the_configuration_and_of_no_weight(tmp_path, rng, assert_close):
    x, y, _ = _data(rng)
    plain, model = _pair("tied")
    assert [w.path for w in plain.weights] == [w.path for w in model.weights]
    _compile(model)
    before = model.evaluate(x, y, B, 0, return_dict=True)
    model.save(tmp_path / "model.keras")
    again = ek.load_model(tmp_path / "model.keras", custom_objects={"TargetSum": TargetSum})
    assert again.loss_chunk == 3
    after = again.evaluate(x, y, B, 0, return_dict=True)
    assert_close(list(after.values()), list(before.values()), 1e-6)
    assert ek.registry.to_config(model)["loss_chunk"] == 3


def test_what_is_not_computed_in_chunks_is_refused(rng):
    x, y, _ = _data(rng)
    model = _pair("tied")[1]
    for loss in ("sparse_categorical_crossentropy", keras.losses.MeanSquaredError()):
        model.compile(loss=loss)
        with pytest.raises(ValueError, match="Compile with it, or build the model with loss_chunk"):
            model.evaluate(x, y, B, 0)
    for chunk in (0, True, 2.5):
        with pytest.raises((ValueError, TypeError), match="loss_chunk"):
            ek.models.CausalLM(loss_chunk=chunk)


@pytest.mark.parametrize("at", [0, 1])
def test_targets_at_padding_change_no_loss(at, rng, assert_close):
    x, y, _ = _data(rng)
    model = _pair("tied")[at]
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    other = np.where(x == 0, (y + 1) % V, y)
    assert_close(model.evaluate(x, other, B, 0), model.evaluate(x, y, B, 0), 1e-6)
