"""Convolutions that the tests of the C++ kernel share."""

import pytest
from engines.support import normal, rng

import ember_keras as ek
from ember_keras import backend
from ember_keras.ops import kernels
from ember_keras.ops.kernels import native_fft_conv

from keras import ops  # isort: skip - after ember_keras

MARKS = [
    pytest.mark.skipif(native_fft_conv.reason() is not None, reason=str(native_fft_conv.reason())),
    pytest.mark.skipif(
        kernels.table.device_of(ops.zeros(())) != "cpu", reason="it runs on processors"
    ),
]
"""Of a module of such tests."""

SIZES = [(2, 40, 12, 40, 12), (3, 37, 5, 53, 1), (1, 64, 32, 20, 8), (2, 1, 3, 9, 3)]
"""B, T, D, taps, F."""


def arguments(sizes, dtype="float32"):
    b, t, width, taps, filters = sizes
    g = rng(*sizes)
    arrays = normal(g, b, t, width), normal(g, taps, filters), normal(g, width)
    return [ops.cast(ops.convert_to_tensor(x), dtype) for x in arrays]


def both(monkeypatch, function):
    """The results of a function with the kernel and without it."""
    found = []
    for setting in ("cpu_fft_conv", "portable"):
        monkeypatch.setenv("EMBER_KERNELS", setting)
        found.append([backend.to_numpy(x).astype("float64") for x in function()])
    return zip(*found, strict=True)


def run(u, k, d, causal=True):
    return ek.ops.fft_conv(u, k, d, causal=causal)


GATES = ((True, True), (True, False), (False, True))


def gated(u, k, d, *gates, which, causal=True):
    gates = iter(gates)
    given = {name: next(gates) if there else None for name, there in zip(NAMES, which, strict=True)}
    return ek.ops.fft_conv(u, k, d, causal=causal, **given)


NAMES = ("gate_in", "gate_out")


def gates_of(u, which):
    return [gate for gate, there in zip((ops.cos(2 * u), ops.tanh(u)), which, strict=True) if there]


def only(name):
    """The marks of a module whose tests concern one backend."""
    mark = pytest.mark.skipif(backend.name() != name, reason=f"concerns {name} only")
    return [*MARKS, mark]
