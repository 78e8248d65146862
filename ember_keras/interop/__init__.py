"""Layers of other packages, made into layers of this one: one module a package.

A converter takes the other package's module, reads its weights by name, and never imports the
package. What it returns is built, and its weights are set.
"""

from ember_keras.interop import keras_layers, mambapy, ncps, torch_nn, transformers, xlstm

__all__ = [
    "keras_layers",
    "mambapy",
    "ncps",
    "torch_nn",
    "transformers",
    "xlstm",
]
