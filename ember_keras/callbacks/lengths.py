"""Sequences of any length for Keras models on tensorflow."""

from __future__ import annotations

import keras

from ember_keras import backend


class CompileEachLength(keras.callbacks.Callback):
    """Compiles a Keras model once for each length it meets, where Keras would leave it unknown.

    On tensorflow Keras makes the second length that one model's `fit`, `evaluate` or `predict`
    meets unknown, which Ember Keras's layers refuse. Give this callback to each of the three. The
    models in `ember_keras.models` do the same by themselves, and other backends need no callback.

    Example:

    ```python
    import keras
    import numpy as np
    import ember_keras as ek

    model = keras.Sequential([keras.layers.Input((None, 4)), ek.layers.MinGRU()])
    model.compile("sgd", "mse")
    lengths = ek.callbacks.CompileEachLength()
    for length in (7, 12):
        x = np.ones((2, length, 4), "float32")
        print(model.predict(x, verbose=0, callbacks=[lengths]).shape)  # (2, 7, 4), (2, 12, 4)
    ```
    """

    def on_train_begin(self, logs=None):
        self.model.train_function = backend.each_length(self.model, "train")

    def on_test_begin(self, logs=None):
        self.model.test_function = backend.each_length(self.model, "test")

    def on_predict_begin(self, logs=None):
        self.model.predict_function = backend.each_length(self.model, "predict")
