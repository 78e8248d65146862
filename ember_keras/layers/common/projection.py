"""The linear map that every layer here is made of."""

from __future__ import annotations

from typing import Any

import keras

from ember_keras.ops.kernels.positions import by_positions


class Projection(keras.layers.Dense):
    """`keras.layers.Dense`, whose product runs as the kernel table says.

    Weights, names, options and files are those of `keras.layers.Dense`.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return by_positions(super().call, inputs)
