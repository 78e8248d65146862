"""A large batch that is mixed in groups of rows gives what it gives whole."""

import numpy as np
import pytest

import ember_keras as ek  # before Keras
from ember_keras.ops.kernels import row_groups

from keras import ops  # isort: skip

pytestmark = pytest.mark.skipif(ek.backend.name() != "torch", reason="only torch takes groups")
BATCH, TIME, WIDTH = 5, 40, 16


GROUPED = [
    name
    for name in ek.registry.sequence_mixers.names()
    if ek.registry.sequence_mixers.build(name)._rows_apart
]


@pytest.mark.parametrize("name", GROUPED)
def test_outputs_and_gradients_are_those_of_the_whole(name, rng, monkeypatch):
    import torch

    layer = ek.registry.sequence_mixers.build(name)
    layer.build((None, TIME, WIDTH))
    x = ops.convert_to_tensor(rng.normal(size=(BATCH, TIME, WIDTH)).astype("float32"))
    options = {
        "mask": ops.convert_to_tensor(rng.random((BATCH, TIME)) < 0.8),
        "segment_ids": ops.convert_to_tensor(np.sort(rng.integers(0, 3, (BATCH, TIME)), axis=1)),
    }
    slope = ops.convert_to_tensor(rng.normal(size=(BATCH, TIME, WIDTH)).astype("float32"))
    weights = [weight.value for weight in layer.trainable_weights]
    mixed, mix = [], type(layer).mix

    def counted(self, x, *rest, **common):
        mixed.append(len(x))
        return mix(self, x, *rest, **common)

    monkeypatch.setattr(type(layer), "mix", counted)

    def run(large):
        monkeypatch.setattr(row_groups, "LARGE", large)
        mixed.clear()
        leaf = x.clone().requires_grad_()
        y = layer(leaf, **options)
        gradients = torch.autograd.grad(ops.sum(y * slope), [leaf, *weights], allow_unused=True)
        return [ek.backend.to_numpy(each) for each in (y, *gradients) if each is not None]

    whole = run(2**30)
    assert mixed == [BATCH]
    parts = run(2 * TIME * WIDTH)
    assert mixed == [1, 2, 2]
    monkeypatch.setenv("EMBER_KERNELS", "portable")
    run(2 * TIME * WIDTH)
    assert mixed == [BATCH]
    for one, other in zip(parts, whole, strict=True):
        assert np.abs(one - other).max() <= 2e-5 * max(np.abs(other).max(), 1e-6)


def test_a_state_and_a_transformation_take_the_batch_whole(rng, monkeypatch):
    import torch

    monkeypatch.setattr(row_groups, "LARGE", 1)
    layer = ek.layers.Mamba2()
    x = ops.convert_to_tensor(rng.normal(size=(3, 8, 16)).astype("float32"))
    y, state = layer(x, return_state=True)
    np.testing.assert_allclose(ek.backend.to_numpy(layer(x)), ek.backend.to_numpy(y), atol=1e-6)
    assert len(state["mixer"]["matrix"]) == 3
    slopes = torch.func.grad(lambda x: ops.sum(layer(x)))(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(ops.sum(layer(leaf)), leaf)
    np.testing.assert_allclose(
        ek.backend.to_numpy(slopes), ek.backend.to_numpy(expected), atol=1e-5
    )
