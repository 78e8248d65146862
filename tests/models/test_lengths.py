"""`fit`, `evaluate` and `predict` of one model with sequences of several lengths."""

import numpy as np
import pytest

import ember_keras as ek  # isort: skip
import keras

pytestmark = [
    pytest.mark.trains,
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),  # said of a generator's end
]

LENGTHS = (8, 21, 8, 13)
BLOCKS = ["mamba", "hyena", "attention"]


def batches(rng, repeat=1):
    """Tokens of several lengths, and the same again as targets."""
    for length in LENGTHS * repeat:
        tokens = rng.integers(0, 11, (2, length))
        yield tokens, tokens


def language_model(**options):
    keras.utils.set_random_seed(0)
    model = ek.models.CausalLM(vocab_size=11, width=8, blocks=BLOCKS)
    model(np.zeros((1, 8), "int32"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    return model


def weights(model):
    return [ek.backend.to_numpy(v) for v in model.trainable_variables]


def test_training_on_batches_of_several_lengths_is_that_of_eager_steps():
    eager, compiled = language_model(run_eagerly=True), language_model()
    for model in (eager, compiled):
        model.fit(batches(np.random.default_rng(0)), shuffle=False, verbose=0)
    for a, b in zip(weights(eager), weights(compiled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_model_trains_evaluates_and_predicts_at_several_lengths(rng):
    model = language_model()
    for length in LENGTHS:
        x = rng.integers(0, 11, (5, length))
        model.fit(x, x, batch_size=2, verbose=0, validation_data=(x, x))
        y = model.predict(x, batch_size=2, verbose=0)
        np.testing.assert_allclose(y, ek.backend.to_numpy(model(x)), atol=1e-4)
        logits = keras.ops.convert_to_tensor(y)
        expected = keras.losses.sparse_categorical_crossentropy(x, logits, from_logits=True)
        loss = model.evaluate(x, x, batch_size=5, verbose=0)
        assert loss == pytest.approx(float(keras.ops.mean(expected)), abs=1e-4)


def test_a_length_is_traced_once(rng, monkeypatch):
    if ek.backend.name() == "torch":
        pytest.skip("torch runs eagerly")
    model, calls = language_model(), []
    kind = type(model.backbone.stack[0])
    plain = kind.call

    def counted(self, x, *args, **kwargs):
        calls.append(x.shape)
        return plain(self, x, *args, **kwargs)

    monkeypatch.setattr(kind, "call", counted)
    for length in LENGTHS:
        x = rng.integers(0, 11, (2, length))
        for _ in range(2):
            model.predict(x, verbose=0)
    assert len(calls) == len(set(LENGTHS)) * len(BLOCKS)


def test_several_steps_at_once(rng):
    if ek.backend.name() == "torch":
        pytest.skip("Keras has none on torch")
    rows = 12 if ek.backend.name() == "mlx" else 10  # keras-mlx warns of a shorter last execution
    x = rng.integers(0, 11, (rows, 8))
    one, three = language_model(), language_model(steps_per_execution=3)
    for model in (one, three):
        model.fit(x, x, batch_size=2, shuffle=False, verbose=0)
    for a, b in zip(weights(one), weights(three), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    predicted = [model.predict(x, batch_size=2, verbose=0) for model in (one, three)]
    np.testing.assert_allclose(*predicted, atol=1e-4)


def test_a_dataset_of_unknown_length_on_tensorflow():
    if ek.backend.name() != "tensorflow":
        pytest.skip("tf.data's unknown shapes reach the model on tensorflow alone")
    import tensorflow as tf

    spec = tf.TensorSpec((2, None), "int64")
    data = tf.data.Dataset.from_generator(
        lambda: batches(np.random.default_rng(0)), output_signature=(spec, spec)
    )
    model, eager = language_model(), language_model(run_eagerly=True)
    for each in (model, eager):
        each.fit(data, epochs=2, shuffle=False, verbose=0, validation_data=data)
    for a, b in zip(weights(eager), weights(model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_callback_serves_keras_models(rng):
    model = keras.Sequential([keras.layers.Input((None, 4)), ek.layers.MinGRU()])
    model.compile("sgd", "mse")
    each = ek.callbacks.CompileEachLength()
    for length in LENGTHS:
        x = rng.normal(size=(3, length, 4)).astype("float32")
        history = model.fit(x, x, verbose=0, callbacks=[each])
        assert np.isfinite(history.history["loss"]).all()
        assert np.isfinite(model.evaluate(x, x, verbose=0, callbacks=[each]))
        y = model.predict(x, verbose=0, callbacks=[each])
        np.testing.assert_allclose(y, ek.backend.to_numpy(model(x)), atol=1e-5)
    function = model.predict_function
    model.predict(x, verbose=0, callbacks=[each])
    assert model.predict_function is function


_EXPERTS = {"type": "mixture_of_experts", "num_experts": 3}
_LENGTHS = ["min_gru", "pooled", "fft_conv", "h3", {**_EXPERTS, "router": "soft"}]


@pytest.mark.parametrize("mixer", _LENGTHS, ids=str)
def test_an_unknown_length_names_the_callback(mixer):
    if ek.backend.name() != "tensorflow":
        pytest.skip("only tensorflow traces unknown lengths")
    import tensorflow as tf

    layer = ek.blocks.Block(mixer)
    layer.build((None, None, 4))
    with pytest.raises(ValueError, match="CompileEachLength"):
        tf.function(layer).get_concrete_function(tf.TensorSpec((2, None, 4)))
