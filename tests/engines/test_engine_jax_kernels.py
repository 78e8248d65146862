"""The time loop on jax with its products apart: each form of a product, transformations."""

import numpy as np
import pytest
from engines.support import error, normal, rng

from ember_keras import backend  # isort: skip - before Keras
from keras import ops

from ember_keras.ops import kernels
from ember_keras.ops.engines.nonlinear_scan import nonlinear_scan

pytestmark = pytest.mark.skipif(backend.name() != "jax", reason="concerns the jax backend only")

ROWS, TIME, WIDTH = 2, 9, 4


def weight_right(x, state, w):
    state = ops.tanh(x + ops.matmul(state, w["square"]))
    return state, state


def weight_left(x, state, w):
    state = ops.tanh(x + ops.transpose(ops.matmul(w["square"], ops.transpose(state))))
    return state, state


def weight_in_turned_axes(x, state, w):
    state = ops.tanh(x + ops.einsum("bk,jk->bj", state, w["square"]))
    return state, state


def weight_by_head(x, state, w):
    heads = ops.reshape(state, (-1, 2, 2))
    state = ops.tanh(x + ops.reshape(ops.einsum("bhk,hkj->bhj", heads, w["heads"]), (-1, WIDTH)))
    return state, state


def two_axes_summed(x, state, w):
    outer = state[:, :, None] * x[:, None, :]
    state = ops.tanh(x + ops.einsum("bij,jik->bk", outer, w["cube"]))
    return state, state


def weight_twice_and_outside(x, state, w):
    state = ops.matmul(state, w["square"]) + ops.sum(w["square"] ** 2, axis=0)
    state = ops.silu(x + ops.matmul(state, w["square"]))
    return ops.matmul(state, w["square"]), state


def weights_by_each_other(x, state, w):
    state = ops.tanh(x + ops.matmul(state, ops.matmul(w["square"], w["square"])))
    return state, state


def no_product(x, state, w):
    state = ops.tanh(x + state * w["square"][0])
    return state, state


CELLS = (
    weight_right,
    weight_left,
    weight_in_turned_axes,
    weight_by_head,
    two_axes_summed,
    weight_twice_and_outside,
    weights_by_each_other,
    no_product,
)


def inputs():
    g = rng(5)
    weights = {
        "square": normal(g, WIDTH, WIDTH) / 2,
        "heads": normal(g, 2, 2, 2),
        "cube": normal(g, WIDTH, WIDTH, WIDTH) / 2,
    }
    return normal(g, ROWS, TIME, WIDTH), normal(g, ROWS, WIDTH), weights


def with_both(monkeypatch, function):
    """The leaves of what a function gives with the kernel, and without."""
    import jax

    found = []
    for setting in ("late_products", "portable"):
        monkeypatch.setenv("EMBER_KERNELS", setting)
        found.append([np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(function)())])
    return list(zip(*found, strict=True))


def total(cell, **options):
    def function(x, state, weights):
        y = nonlinear_scan(cell, x, weights=weights, initial_state=state, **options)
        return ops.sum(ops.sin(y))

    return function


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_every_product_has_its_gradients(cell, monkeypatch):
    import jax

    mask = rng(6).random((ROWS, TIME)) < 0.7
    for options in ({}, {"unroll": 2}, {"mask": mask}, {"truncate": 4}):
        form = total(cell, **options)
        for got, expected in with_both(
            monkeypatch, lambda form=form: jax.value_and_grad(form, (0, 1, 2))(*inputs())
        ):
            assert error(got, expected) < 2e-6 or not expected.any() and not got.any()


@pytest.mark.parametrize("cell", CELLS[:4], ids=lambda cell: cell.__name__)
def test_transformations(cell, monkeypatch):
    """Second derivatives, a batch of weights, and a batch of sequences."""
    import jax

    x, state, weights = inputs()
    form = total(cell)

    def slope(weights):
        first = jax.grad(form, (0, 2))(x, state, weights)
        return sum(ops.sum(ops.sin(leaf)) for leaf in jax.tree.leaves(first))

    def of_many():
        many = jax.tree.map(lambda leaf: ops.stack([leaf, -leaf]), weights)
        return jax.vmap(jax.grad(form, 2), (None, None, 0))(x, state, many)

    def of_sequences():
        return jax.vmap(jax.grad(form, (0, 2)), (0, 0, None))(
            ops.stack([x, -x]), ops.stack([state, state]), weights
        )

    for function in (lambda: jax.grad(slope)(weights), of_many, of_sequences):
        for got, expected in with_both(monkeypatch, function):
            assert error(got, expected) < 5e-6 or not expected.any() and not got.any()


def test_where_it_runs():
    rows = {row.kernel: row for row in kernels.explain("nonlinear_scan")}
    assert rows["late_products"].runs
    rows = {row.kernel: row for row in kernels.explain("nonlinear_scan", recompute=True)}
    assert not rows["late_products"].runs and "recompute" in rows["late_products"].reason
    closes = {row.kernel: row for row in kernels.explain("nonlinear_scan", cell=total(no_product))}
    assert not closes["late_products"].runs and "closure" in closes["late_products"].reason
