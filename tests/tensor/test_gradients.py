"""Gradients flow through EmberTensor on every training backend, and are never lost silently."""

import os

import keras
import numpy as np
import optree
import pytest

from ember_keras import ops
from ember_keras.ops import EmberTensor

BACKEND = os.environ["KERAS_BACKEND"]
X = np.array([[1.0, -2.0], [3.0, 0.5], [0.0, 1.0]], "float32")
W = np.array([[2.0, 1.0], [-1.0, 3.0]], "float32")


def only(name):
    return pytest.mark.skipif(name != BACKEND, reason=f"concerns the {name} backend only")


def loss_of(x):
    """A scalar of operators, indexing, reductions and products of an EmberTensor shaped as X."""
    y = x @ ops.asarray(W) + 2 * x
    y = ops.concat([y[::-1, :1], ops.tanh(y[:, 1:])], axis=1)
    y = ops.where(y > 0, y, 0.1 * y)[[0, 2, 2]]
    return ops.sum(y**2) + ops.mean(ops.einsum("ij,ij->i", x, x))


def by_differences(step=1e-3):
    """The gradient of `loss_of` at X by central differences of the same loss in float64 numpy."""

    def loss(x):
        y = x @ W + 2 * x
        y = np.concatenate([y[::-1, :1], np.tanh(y[:, 1:])], axis=1)
        y = np.where(y > 0, y, 0.1 * y)[[0, 2, 2]]
        return np.sum(y**2) + np.mean(np.sum(x * x, axis=1))

    gradient = np.zeros(X.shape)
    for place in np.ndindex(*X.shape):
        shift = np.zeros(X.shape)
        shift[place] = step
        gradient[place] = (loss(X + shift) - loss(X - shift)) / (2 * step)
    return gradient


def check(gradient):
    gradient = gradient.detach().numpy() if isinstance(gradient, EmberTensor) else gradient
    np.testing.assert_allclose(np.asarray(gradient), by_differences(), rtol=1e-3, atol=1e-4)


def refuses(x):
    """Every way out of the library raises for `x`; every way inside works."""
    ways = [x.numpy, x.__dlpack__, lambda: np.asarray(x), lambda: float(ops.sum(x))]
    ways += [lambda: x.to("numpy" if BACKEND != "numpy" else "torch")]
    for way in ways:
        with pytest.raises(ValueError, match="detach"):
            way()
    assert x.to(BACKEND) is x.value and ops.asarray(x).value is x.value


@pytest.mark.trains
def test_value_and_grad():
    value, (gradient,) = ops.value_and_grad(loss_of)(ops.asarray(X))
    assert isinstance(value, EmberTensor) and isinstance(gradient, EmberTensor)
    check(gradient)
    value, (gradient,) = ops.value_and_grad(lambda x: ops.sum(x * x))(keras.ops.ones((2,)))
    assert keras.ops.is_tensor(value) and keras.ops.is_tensor(gradient)


@only("torch")
def test_torch():
    import torch

    leaf = torch.tensor(X, requires_grad=True)
    x = EmberTensor(leaf)
    loss_of(x).value.backward()
    check(leaf.grad)

    leaf.grad = None
    dense = keras.layers.Dense(1)
    total = torch.sum(EmberTensor(dense(x * 1.0)) * x)  # A torch function takes EmberTensors.
    assert isinstance(total, EmberTensor)
    total.value.backward()
    assert leaf.grad.abs().sum() > 0 and dense.kernel.value.grad.abs().sum() > 0

    refuses(x)
    assert x.detach().numpy().tolist() == X.tolist()
    assert bool(ops.all(x == x)) and "-2." in repr(x)
    with pytest.raises(ValueError, match="detach"):
        keras.ops.add(x, 1)  # Keras's own functions would go through numpy.
    check(torch.func.grad(lambda t: loss_of(EmberTensor(t)).value)(leaf.detach()))


@only("jax")
def test_jax():
    import jax

    check(jax.grad(lambda x: loss_of(x).value)(ops.asarray(X)))  # A pytree as argument.
    check(jax.jit(jax.grad(lambda t: loss_of(EmberTensor(t)).value))(X))  # And inside.
    result = jax.jit(lambda x: x + 1)(ops.asarray(X))
    assert isinstance(result, EmberTensor)
    assert isinstance(jax.vmap(lambda x: x * 2)(ops.asarray(X)), EmberTensor)
    assert jax.eval_shape(lambda x: x, ops.asarray(X)).shape == X.shape
    assert isinstance(jax.tree.map(lambda leaf: leaf + 1, {"a": ops.asarray(X)})["a"], EmberTensor)
    check(jax.grad(lambda t: jax.numpy.sum(jax.numpy.asarray(loss_of(EmberTensor(t)))))(X))

    dense = keras.layers.Dense(1)
    dense.build((None, 2))
    assert jax.grad(lambda x: dense(x).sum())(ops.asarray(X)).shape == X.shape

    def inside(x):
        refuses(x)
        assert repr(x) == "EmberTensor(shape=(3, 2), dtype=float32, traced)"
        with pytest.raises(ValueError, match="traced"):
            bool(ops.all(x > 0))
        with pytest.raises(ValueError, match="where"):
            x[x > 0]
        return loss_of(x).value

    jax.jit(inside)(ops.asarray(X))


@only("tensorflow")
def test_tensorflow():
    import tensorflow as tf

    x = ops.asarray(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        refuses(x)
        total = loss_of(x)
    gradient = tape.gradient(total, x)
    assert isinstance(gradient, EmberTensor)
    check(gradient)
    assert x.numpy().tolist() == X.tolist()

    dense = keras.layers.Dense(1)
    with tf.GradientTape() as tape:
        tape.watch(x.value)
        total = tf.reduce_sum(dense(x * 1.0))  # TensorFlow's functions take EmberTensors.
        total += tf.reduce_sum(x)
    assert tape.gradient(total, x.value).shape == X.shape

    @tf.function
    def compiled(t):
        inner = EmberTensor(t)
        refuses(inner)
        return loss_of(inner).value

    with tf.GradientTape() as tape:
        tape.watch(x.value)
        total = compiled(x.value)
    check(tape.gradient(total, x.value))
    assert tf.is_tensor(tf.function(lambda x: x + 1)(x))  # It sees the bare tensor.
    with tf.GradientTape() as tape, pytest.raises(ValueError, match="detach"):
        tape.watch(x)
        compiled(x)  # TensorFlow would take its values as a constant here.


@only("mlx")
def test_mlx():
    import mlx.core as mx

    def inside(t):
        x = EmberTensor(t)
        refuses(x)
        refuses(x * 2)
        assert ops.ones((2,)).numpy().tolist() == [1, 1]  # A constant has no gradient to lose.
        return loss_of(x).value

    array = mx.array(X)
    _, gradient = mx.value_and_grad(inside)(array)
    check(gradient)
    check(mx.compile(mx.grad(inside))(array))
    assert EmberTensor(array).numpy().tolist() == X.tolist()

    dense = keras.layers.Dense(1)
    dense.build((None, 2))
    assert mx.grad(lambda t: dense(EmberTensor(t)).sum())(array).shape == X.shape


def test_stop_gradient_keeps_the_values():
    x = ops.asarray(X)
    np.testing.assert_array_equal(ops.stop_gradient(x).numpy(), X)
    np.testing.assert_array_equal(x.detach().numpy(), X)


def test_pytrees():
    nest = {"a": ops.asarray(X), "b": [ops.asarray(W)]}
    mapped = optree.tree_map(lambda leaf: leaf * 2, nest, namespace="ember_keras")
    assert isinstance(mapped["b"][0], EmberTensor)
    assert all(keras.ops.is_tensor(leaf) for leaf in keras.tree.flatten(nest))
    assert keras.ops.is_tensor(keras.tree.map_structure(lambda leaf: leaf, nest)["a"])
