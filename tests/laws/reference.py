"""The reference of law 4, made in a process of its own: every case on numpy in float64, its engines
replaced by their `naive.py`, and its gradients by central differences.

Run as `KERAS_BACKEND=numpy python reference.py out.npz`. A gradient is known by its products with
random
directions: one number a weight and direction, which a wrong gradient cannot meet.
"""

import os
import sys

import numpy as np

TIME = 7
DIRECTIONS = 2
STEP = 1e-5


def inputs(case):
    """The input of a case, and the cotangent of its output for a given output shape."""
    rng = np.random.default_rng(7)
    return case.inputs(rng, 2, TIME)


def cotangent(shape):
    """The weights of the outputs in the scalar that is differentiated."""
    return np.random.default_rng(8).normal(size=shape)


def directions(shape, index):
    """The directions in which the gradient of the weight at `index` is known; -1 is the input."""
    rng = np.random.default_rng([9, index + 1])
    return [rng.normal(size=shape) / max(1, np.prod(shape)) ** 0.5 for _ in range(DIRECTIONS)]


def _install_naive_engines():
    from ember_keras.layers.common import short_convolution
    from ember_keras.layers.sequence_mixing import attention, long_convolution
    from ember_keras.ops.engines.attention.naive import attention as naive_attention
    from ember_keras.ops.engines.fft_conv.naive import fft_conv as naive_fft_conv

    def of_arrays(engine):
        def run(*tensors, **options):
            tensors = [t.numpy() if hasattr(t, "numpy") else t for t in tensors]
            return engine(*tensors, **options)

        return run

    attention.attention = of_arrays(naive_attention)
    long_convolution.fft_conv = of_arrays(naive_fft_conv)
    short_convolution.fft_conv = of_arrays(naive_fft_conv)


def _products(case):
    """Arrays by name: the output, and each gradient's products."""
    layer = case.build(dtype="float64")
    x = inputs(case)
    x = x if case.takes_tokens else x.astype("float64")
    y = np.asarray(layer(x))
    weights = cotangent(y.shape)
    found = {"output": y}

    def scalar():
        return float(np.sum(np.asarray(layer(x)) * weights))

    for i, variable in enumerate(layer.trainable_weights):
        start = np.array(variable.numpy())
        products = []
        for direction in directions(start.shape, i):
            values = []
            for sign in (1, -1):
                variable.assign(start + sign * STEP * direction)
                values.append(scalar())
            products.append((values[0] - values[1]) / (2 * STEP))
        variable.assign(start)
        found[f"{i}:{variable.path.partition('/')[2]}"] = np.array(products)
    if not case.takes_tokens:
        start, products = x, []
        for direction in directions(start.shape, -1):
            values = []
            for sign in (1, -1):
                x = start + sign * STEP * direction
                values.append(scalar())
            products.append((values[0] - values[1]) / (2 * STEP))
        found["input"] = np.array(products)
    return found


def _let_keras_compute_in_float64():
    """Keras computes float64 inputs in float32 outside TensorFlow, too coarse for differences."""
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"


def main(out):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from laws import cases

    _let_keras_compute_in_float64()
    _install_naive_engines()
    arrays = {}
    for case in cases.SEQUENCE + cases.CHANNEL:
        for name, value in _products(case).items():
            arrays[f"{case.kind}/{case.id}|{name}"] = value
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
