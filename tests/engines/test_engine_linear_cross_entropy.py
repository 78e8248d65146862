"""The cross-entropy of a head in chunks: the loop's losses and gradients, at any chunk."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.ops.engines.linear_cross_entropy import naive

from keras import ops  # isort: skip - under mlx after ember_keras

CHUNKS = [None, 1, 3, 7, 100]


def _inputs(rng, with_bias):
    x = rng.normal(size=(3, 7, 5)).astype("float32")
    w = 2.0 * rng.normal(size=(11, 5)).astype("float32")
    bias = rng.normal(size=11).astype("float32") if with_bias else None
    return x, w, rng.integers(0, 11, (3, 7)).astype("int32"), bias


def _options(bias, cap, chunk):
    return {"bias": bias, "logit_cap": cap, "chunk": chunk}


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("with_bias, cap", [(False, None), (True, 3.0)])
def test_losses_are_those_of_the_loop(with_bias, cap, chunk, rng, assert_close):
    x, w, targets, bias = _inputs(rng, with_bias)
    losses = ek.ops.linear_cross_entropy(x, w, targets, **_options(bias, cap, chunk))
    expected = naive.linear_cross_entropy(x, w, targets, bias, cap)
    assert_close(ek.backend.to_numpy(losses), expected, 1e-6)


@pytest.mark.trains
@pytest.mark.parametrize("chunk", CHUNKS[1:4])
@pytest.mark.parametrize("with_bias, cap", [(False, None), (True, 3.0)])
def test_every_gradient_is_that_of_the_loop(with_bias, cap, chunk, rng, assert_close):
    x, w, targets, bias = _inputs(rng, with_bias)
    g = rng.normal(size=targets.shape).astype("float32")
    others = () if bias is None else (bias,)

    def scalar(x, w, *others):
        options = _options(others[0] if others else None, cap, chunk)
        losses = ek.ops.linear_cross_entropy(x, w, targets, **options)
        return ops.sum(losses * ops.convert_to_tensor(g))

    given = map(ops.convert_to_tensor, (x, w, *others))
    _, found = ek.backend.compile(ek.backend.value_and_grad(scalar))(*given)
    expected = naive.gradients(x, w, targets, g, bias, cap)
    for name, have, want in zip(("x", "w", "bias"), found, expected, strict=False):
        assert_close(ek.backend.to_numpy(have), want, 1e-5, name)


def test_half_precision_is_summed_in_float32(rng, assert_close):
    x, w, targets, _ = _inputs(rng, False)
    half = [ops.cast(ops.convert_to_tensor(each), "bfloat16") for each in (x, w)]
    losses = ek.ops.linear_cross_entropy(*half, targets, chunk=2)
    rounded = [ek.backend.to_numpy(ops.cast(each, "float32")) for each in half]
    assert_close(ek.backend.to_numpy(losses), naive.linear_cross_entropy(*rounded, targets), 1e-6)


def test_large_logits_stay_finite(rng):
    x, w, targets, _ = _inputs(rng, False)
    losses = ek.backend.to_numpy(ek.ops.linear_cross_entropy(100 * x, 100 * w, targets, chunk=2))
    assert np.isfinite(losses).all()


def test_what_makes_no_loss_is_refused(rng):
    x, w, targets, _ = _inputs(rng, False)
    with pytest.raises(ValueError, match="width D of w"):
        ek.ops.linear_cross_entropy(x, w[:, :3], targets)
    with pytest.raises(TypeError, match="expected integers"):
        ek.ops.linear_cross_entropy(x, w, targets.astype("float32"))
    with pytest.raises(ValueError, match="targets of shape"):
        ek.ops.linear_cross_entropy(x, w, targets[:, :3])
    with pytest.raises(ValueError, match="length V of bias"):
        ek.ops.linear_cross_entropy(x, w, targets, bias=w[0])
    with pytest.raises(ValueError, match="chunk = 0"):
        ek.ops.linear_cross_entropy(x, w, targets, chunk=0)
    with pytest.raises(ValueError, match="logit_cap = -1"):
        ek.ops.linear_cross_entropy(x, w, targets, logit_cap=-1.0)
