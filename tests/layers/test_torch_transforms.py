"""`torch.func` goes through every mixer: gradients, and gradients row by row in one call."""

import numpy as np
import pytest

import ember_keras as ek  # before Keras

from keras import ops  # isort: skip

pytestmark = pytest.mark.skipif(ek.backend.name() != "torch", reason="torch.func is torch's")


@pytest.mark.parametrize("name", ek.registry.sequence_mixers.names())
def test_gradients_by_row(name, rng):
    import torch

    layer = ek.registry.sequence_mixers.build(name)
    layer.build((None, 70, 16))
    x = ops.convert_to_tensor(rng.normal(size=(3, 70, 16)).astype("float32"))

    def total(x):
        return ops.sum(ops.sin(layer(x[None])))

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(sum(total(row) for row in leaf), leaf)
    expected = ek.backend.to_numpy(expected)
    each = torch.stack([torch.func.grad(total)(row) for row in x])
    for found in (each, torch.func.vmap(torch.func.grad(total))(x)):
        off = np.abs(ek.backend.to_numpy(found) - expected).max() / np.abs(expected).max()
        assert off < 2e-5
