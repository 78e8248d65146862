"""The reference of law 4, made in a process of its own: every case on numpy in float64, its engines
replaced by their `naive.py`, and its gradients by central differences.

Run as `KERAS_BACKEND=numpy python reference.py out.npz`. A gradient is known by its products with
random
directions: one number a weight and direction, which a wrong gradient cannot meet.
"""

import dataclasses
import importlib
import os
import pkgutil
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
    """Puts the naive form in the place of every engine that a layer's module has imported."""
    naive = _naive_engines()
    for name, module in list(sys.modules.items()):
        if not name.startswith("ember_keras.layers"):
            continue
        for attribute, value in list(vars(module).items()):
            if callable(value) and value in naive:
                setattr(module, attribute, naive[value])


def _naive_engines():
    """The naive form of each public engine function that has one."""
    from ember_keras.ops import engines

    found = {}
    for _, name, is_package in pkgutil.iter_modules(engines.__path__, engines.__name__ + "."):
        if not is_package:
            continue
        package, naive = importlib.import_module(name), importlib.import_module(name + ".naive")
        for public in package.__all__:
            if hasattr(naive, public):
                found[getattr(package, public)] = _of_arrays(getattr(naive, public))
    return found


def _of_arrays(engine):
    def run(*tensors, **options):
        return engine(*(t.numpy() if hasattr(t, "numpy") else t for t in tensors), **options)

    return run


def _products(case):
    """Arrays by name: the output, and each gradient's products."""
    layer = case.build_anew(dtype="float64")
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

    from ember_keras.backend._capabilities import TABLE

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    TABLE["numpy"] = dataclasses.replace(TABLE["numpy"], float64=True)


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
