"""The closed table, and the replica of Keras's order of parts, held against Keras itself."""

import inspect

import keras
import pytest

from ember_keras.models.saving import hdf5, objects
from ember_keras.models.saving.expected import saved_arrays

OPENS = ("path", "file", "vocab", "idf", "fn", "function", "module", "url", "dataset", "tokenizer")


def stock_classes():
    for module, namespace in objects._NAMESPACES.items():
        for name in vars(namespace):
            if objects.stock_class(module, name) is not None:
                yield f"{module}.{name}", objects.stock_class(module, name)


def test_no_allowed_class_takes_a_path_or_code():
    for name, cls in stock_classes():
        arguments = inspect.signature(cls.__init__).parameters
        risky = [key for key in arguments if any(word in key for word in OPENS)]
        wraps = issubclass(cls, keras.losses.Loss | keras.metrics.Metric) and risky == ["fn"]
        assert not risky or wraps or cls.__name__ in objects.LOOKUPS, f"{name} takes {risky}"


def test_refused_classes_are_refused_under_every_name():
    for module in objects._NAMESPACES:
        for name in objects.REFUSED:
            assert objects.stock_class(module, name) is None
    for cls in (keras.layers.Lambda, keras.layers.TFSMLayer, keras.layers.TorchModuleWrapper):
        assert objects.stock_class(cls.__module__, cls.__name__) is None


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("keras.utils", "get_file"),
        ("keras.layers", "deserialize"),
        ("keras.layers", "__init__"),
        ("keras.saving", "KerasFileEditor"),
        ("keras.src.utils.file_utils", "get_file"),
        ("keras.src.saving.serialization_lib", "enable_unsafe_deserialization"),
        (None, "Dense"),
        ("keras.layers", ["Dense"]),
    ],
)
def test_what_is_not_in_the_table(module, name):
    assert objects.stock_class(module, name) is None


class Parts(keras.Model):
    """Parts in every kind of container, as Keras visits them."""

    def __init__(self):
        super().__init__()
        self.listed = [keras.layers.Dense(2), keras.layers.Dense(2), keras.layers.Dropout(0.1)]
        self.named = {"b": keras.layers.Dense(2), "a": keras.layers.LayerNormalization()}
        self.nested = [[keras.layers.Dense(2)], (keras.layers.Dense(2),)]
        self._private = keras.layers.GRU(2)
        self.again = self.listed[0]
        self.loss_part = keras.losses.MeanSquaredError()

    def call(self, x):
        parts = [*self.listed, *self.named.values(), self.nested[0][0], self.nested[1][0]]
        for part in parts:
            x = part(x)
        return self._private(x)


def zoo():
    layers = keras.layers
    x = keras.Input((4, 3))
    y = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    y = layers.MultiHeadAttention(2, 2)(y, y)
    y = layers.BatchNormalization()(layers.EinsumDense("abc,cd->abd", (None, 3))(y))
    inner = keras.Sequential(
        [keras.Input((4, 3)), layers.Conv1D(2, 2), layers.SeparableConv1D(2, 2)]
    )
    functional = keras.Model(x, keras.ops.mean(inner(y), axis=1))
    quantised = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    quantised.layers[0].quantize("int8")
    tuned = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    tuned.layers[0].enable_lora(2)
    parts = Parts()
    parts(keras.ops.ones((1, 4, 3)))
    return {"functional": functional, "parts": parts, "quantised": quantised, "tuned": tuned}


@pytest.mark.parametrize("name", ["functional", "parts", "quantised", "tuned"])
@pytest.mark.parametrize("optimizer", [None, "adamw", "loss_scale"])
def test_expected_arrays_are_those_that_keras_writes(name, optimizer, tmp_path):
    model = zoo()[name]
    if optimizer:
        adamw = keras.optimizers.AdamW(weight_decay=0.1)
        if optimizer == "loss_scale":
            adamw = keras.optimizers.LossScaleOptimizer(adamw)
        model.compile(adamw, "mse", metrics=["mae"])
        adamw.build(model.trainable_variables)
    model.save_weights(tmp_path / "zoo.weights.h5")
    stored = hdf5.stored_arrays(tmp_path / "zoo.weights.h5", "zoo")
    expected = saved_arrays(model)
    assert {name: array[:2] for name, array in stored.items()} == expected
