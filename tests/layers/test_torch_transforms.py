"""`torch.func` goes through every mixer: gradients, and gradients row by row in one call."""

import numpy as np
import pytest

import ember_keras as ek  # before Keras

from keras import ops  # isort: skip

pytestmark = pytest.mark.skipif(ek.backend.name() != "torch", reason="torch.func is torch's")


EACH = pytest.mark.parametrize(
    "name", [*ek.registry.sequence_mixers.names(), "gated_mlp", "mixture_of_experts"]
)


def build(name):
    kinds = (ek.registry.sequence_mixers, ek.registry.channel_mixers)
    layer = next(kind for kind in kinds if name in kind.names()).build(name)
    layer.build((None, 70, 16))
    return layer


@EACH
def test_gradients_by_row(name, rng):
    import torch

    layer = build(name)
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


@EACH
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own use of it.
def test_forward_mode_is_right_or_refused(name, rng):
    import torch

    layer = build(name)
    x, v = (torch.from_numpy(rng.normal(size=(2, 70, 16)).astype("float32")) for _ in range(2))

    def total(x):
        return ops.sum(ops.sin(layer(x)))

    slope = torch.sum(torch.func.grad(total)(x) * v)
    try:
        found = torch.func.jvp(total, (x,), (v,))[1]
    except NotImplementedError:
        return
    np.testing.assert_allclose(*map(ek.backend.to_numpy, (found, slope)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("expert", ["gated_mlp", "mlp"])  # Of one kernel each.
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.filterwarnings("ignore:torch.searchsorted")  # Advice on speed.
def test_a_mixture_row_by_row(expert, rows, rng):
    import torch

    layer = ek.layers.MixtureOfExperts(num_experts=4, expert=expert)
    layer.build((None, 7, 16))
    x = torch.from_numpy(rng.normal(size=(rows, 7, 16)).astype("float32"))
    found = torch.func.vmap(lambda row: layer(row[None])[0])(x)
    assert found.shape == x.shape
    for row, y in zip(x, found, strict=True):
        np.testing.assert_allclose(
            ek.backend.to_numpy(y), ek.backend.to_numpy(layer(row[None])[0]), rtol=1e-5, atol=1e-6
        )
