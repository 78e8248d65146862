"""LSTM and GRU beside Keras's own layers, on the backend that runs."""

import numpy as np
import pytest

from ember_keras import backend, interop

import keras  # isort: skip - under mlx after ember_keras
from keras import ops  # isort: skip

WIDTH = 12


@pytest.mark.parametrize(
    "name, options",
    (
        ("LSTM", {}),
        ("LSTM", {"use_bias": False}),
        ("GRU", {}),
        ("GRU", {"use_bias": False}),
        ("GRU", {"reset_after": False}),
    ),
)
def test_layer(name, options, rng, assert_close):
    layer = getattr(keras.layers, name)(WIDTH, return_sequences=True, **options)
    layer.build((None, None, WIDTH))
    layer.set_weights([rng.normal(size=w.shape) * 0.4 for w in layer.get_weights()])
    mixer = getattr(interop.keras_layers, name.lower())(layer)
    x = rng.normal(size=(3, 17, WIDTH)).astype("float32")
    mask = np.arange(17)[None] < np.array([[17], [9], [4]])
    assert_close(backend.to_numpy(mixer(x)), backend.to_numpy(layer(x)))
    ours, theirs = mixer(x, mask=mask), layer(x, mask=mask)
    assert_close(backend.to_numpy(ours)[mask], backend.to_numpy(theirs)[mask])
    y, state = mixer(x[:, :16], return_state=True)
    y, _ = mixer.step(x[:, 16], state)
    assert_close(backend.to_numpy(y), backend.to_numpy(layer(x))[:, 16])
    if backend.capabilities().trains:
        slope = ops.convert_to_tensor(rng.normal(size=x.shape).astype("float32"))
        ours, theirs = (
            backend.value_and_grad(lambda x, f=f: ops.sum(f(x) * slope))(ops.convert_to_tensor(x))
            for f in (mixer, layer)
        )
        assert_close(backend.to_numpy(ours[1][0]), backend.to_numpy(theirs[1][0]))


def test_what_has_no_counterpart_is_refused():
    with pytest.raises(ValueError, match="not built"):
        interop.keras_layers.lstm(keras.layers.LSTM(4))
    layer = keras.layers.GRU(4, activation="relu")
    layer.build((None, None, 4))
    with pytest.raises(ValueError, match="relu"):
        interop.keras_layers.gru(layer)
    layer = keras.layers.LSTM(5)
    layer.build((None, None, 4))
    with pytest.raises(ValueError, match="5 units"):
        interop.keras_layers.lstm(layer)
