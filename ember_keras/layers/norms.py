"""The norms that blocks name: Keras's own."""

import keras

from ember_keras import registry

registry.norms.register("layer_norm")(keras.layers.LayerNormalization)
registry.norms.register("rms_norm")(keras.layers.RMSNormalization)
