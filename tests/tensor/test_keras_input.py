"""EmberTensors as input of Keras layers, models, losses and metrics, and of wrapped layers."""

import collections

import keras
import numpy as np
import pytest

from ember_keras import ops
from ember_keras.ops import EmberTensor, call_unwrapped, rewrap, unwrap, wrap

# Keras 3.15 turns every torch tensor into numpy with `np.array(x)`, at which numpy 2 warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


def data(rows=8):
    rng = np.random.default_rng(0)
    return ops.asarray(rng.normal(size=(rows, 3)).astype("float32")), ops.ones((rows, 1))


def sequential():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])


def functional():
    symbol = keras.Input((3,))
    return keras.Model(symbol, keras.layers.Dense(1)(symbol))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)


MODELS = [sequential, functional, Subclassed]


@pytest.mark.parametrize("make", MODELS)
def test_a_model_gives_what_it_gives_for_the_backend_tensor(make):
    x, y = data()
    model = make()
    expected = keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(x.value)))
    result = model(x)
    assert keras.ops.is_tensor(result)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.stop_gradient(result)), expected
    )
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-5, atol=1e-6)
    model.compile("sgd", "mse")
    losses = [model.evaluate(x, y, verbose=0), model.test_on_batch(x, y)]
    np.testing.assert_allclose(losses, np.mean((expected - 1) ** 2), rtol=1e-5)


@pytest.mark.trains
@pytest.mark.parametrize("make", MODELS)
def test_training(make):
    x, y = data()
    model = make()
    model.compile("sgd", "mse", metrics=["mae"])
    weights = ops.ones((8,))
    fitted = model.fit(
        x, y, sample_weight=weights, validation_data=(x, y), batch_size=4, epochs=3, verbose=0
    )
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]
    model.fit(x, y, validation_split=0.25, shuffle=True, verbose=0)
    assert np.isfinite(model.train_on_batch(x, y)[0])


def test_several_inputs_and_several_arguments():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.layers.Add()([a, b]))
    x, _ = data()
    np.testing.assert_allclose(model({"a": x, "b": x}), (x + x).numpy())
    np.testing.assert_allclose(model.predict({"a": x, "b": x}, verbose=0), (x + x).numpy())
    attention = keras.layers.MultiHeadAttention(2, 4)
    sequence = ops.ones((2, 5, 8))
    assert tuple(attention(sequence, value=sequence).shape) == (2, 5, 8)


def test_losses_metrics_and_keras_functions():
    x, y = data()
    assert float(keras.losses.MeanSquaredError()(y, x[:, :1])) > 0
    metric = keras.metrics.MeanAbsoluteError()
    metric.update_state(y, x[:, :1])
    assert float(metric.result()) > 0
    assert tuple(keras.ops.matmul(x, x.T).shape) == (8, 8)


def test_integers_and_mixed_precision():
    embedding = keras.layers.Embedding(10, 4)
    assert tuple(embedding(ops.asarray([[1, 2, 3]])).shape) == (1, 3, 4)
    dense = keras.layers.Dense(2, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(dense(data()[0]).dtype) == "bfloat16"


def test_wrapped_call_gives_ember_tensors():
    x, _ = data()
    layer = keras.layers.Dense(2)
    assert isinstance(call_unwrapped(layer, x), EmberTensor)
    assert keras.ops.is_tensor(call_unwrapped(layer, x.value))
    assert isinstance(call_unwrapped(layer, keras.Input((3,))), keras.KerasTensor)


def test_nests():
    pair = collections.namedtuple("pair", "left right")
    x, _ = data()
    nest = {"a": [x, 1], "b": pair(x, None), "c": collections.OrderedDict(d=(x,))}
    bare = unwrap(nest)
    assert bare["a"][0] is x.value and type(bare["b"]) is pair and nest["a"][0] is x
    assert type(bare["c"]) is collections.OrderedDict
    again = rewrap(bare, like=nest)
    assert isinstance(again["b"].left, EmberTensor) and again["b"].right is None
    assert again["a"][1] == 1
    plain = [1, "a"]
    assert unwrap(plain) is plain and rewrap(bare, like=plain) is bare


def test_wrap_keeps_name_and_signature():
    @wrap
    def doubled(x, *, times=2):
        """Doc."""
        return {"y": x * times}

    assert doubled.__name__ == "doubled" and doubled.__doc__ == "Doc."
    assert isinstance(doubled(ops.ones((2,)), times=3)["y"], EmberTensor)
    assert keras.ops.is_tensor(doubled(keras.ops.ones((2,)))["y"])
