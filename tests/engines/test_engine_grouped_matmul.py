"""The grouped matrix product: every form equals the plain loop, with every gradient."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.ops import kernels
from ember_keras.ops.engines.grouped_matmul import naive
from ember_keras.ops.kernels import row_blocks

from keras import ops  # isort: skip - under mlx after ember_keras

OURS = [k for k in kernels.kernels("grouped_matmul") if ek.backend.name() in k.backends]
FORMS = ["portable", *(kernel.name for kernel in OURS)]
CASES = {
    "even": (12, 3, [4, 4, 4]),
    "uneven": (37, 5, [1, 0, 20, 16, 0]),
    "rows_of_no_group": (23, 4, [3, 0, 7, 2]),
    "one_group": (9, 1, [9]),
    "nothing": (6, 2, [0, 0]),
    "one_row": (1, 6, [0, 0, 1, 0, 0, 0]),
}
START = {"rows_of_no_group": 5, "nothing": 2}


def _inputs(rng, name, width=7, out=5, dtype="float32"):
    rows, groups, sizes = CASES[name]
    offsets = np.cumsum([START.get(name, 0), *sizes]).astype("int32")
    x = rng.normal(size=(rows, width)).astype(dtype)
    w = rng.normal(size=(groups, width, out)).astype(dtype)
    return x, w, offsets


def _form(name, dtype="float32"):
    if name == "portable":
        return row_blocks.run
    kernel = next(k for k in OURS if k.name == name)
    like = {"x": ops.ones((4, 3), dtype), "w": ops.ones((2, 3, 5), dtype)}
    like = kernels.request("grouped_matmul", like)
    reason = kernels.table.refusal(kernel, like)
    if reason is not None and name != "ragged_dot":  # Which is slow on a processor, not wrong.
        pytest.skip(reason)
    return kernel.run


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_the_loop(form, name, rng, assert_close):
    x, w, offsets = _inputs(rng, name)
    y = _form(form)(*map(ops.convert_to_tensor, (x, w, offsets)))
    assert_close(ek.backend.to_numpy(y), naive.grouped_matmul(x, w, offsets), 1e-5)


@pytest.mark.trains
@pytest.mark.parametrize("name", ["uneven", "rows_of_no_group"])
@pytest.mark.parametrize("form", FORMS)
def test_every_gradient_equals_the_loop(form, name, rng, assert_close):
    run = _form(form)
    x, w, offsets = _inputs(rng, name)
    g = rng.normal(size=(len(x), w.shape[2])).astype("float32")
    bounds, weights = ops.convert_to_tensor(offsets), ops.convert_to_tensor(g)

    def scalar(x, w):
        return ops.sum(run(x, w, bounds) * weights)

    _, (dx, dw) = ek.backend.value_and_grad(scalar)(*map(ops.convert_to_tensor, (x, w)))
    expected = naive.grouped_matmul(g, np.swapaxes(w, 1, 2), offsets)
    assert_close(ek.backend.to_numpy(dx), expected, 1e-5, "x")
    products = [x[a:b].T @ g[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]
    assert_close(ek.backend.to_numpy(dw), np.stack(products), 1e-5, "w")


@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form, rng, assert_close):
    x, w, offsets = _inputs(rng, "uneven", width=40)
    half = [ops.cast(ops.convert_to_tensor(each), "bfloat16") for each in (x, w)]
    y = _form(form, "bfloat16")(*half, ops.convert_to_tensor(offsets))
    y = ek.backend.to_numpy(ops.cast(y, "float32"))
    assert_close(y, naive.grouped_matmul(x, w, offsets), 0.02)


def test_compiled_equals_eager(rng, assert_close):
    x, w, offsets = map(ops.convert_to_tensor, _inputs(rng, "uneven"))
    compiled = ek.backend.compile(ek.ops.grouped_matmul)
    y = ek.backend.to_numpy(compiled(x, w, offsets))
    assert_close(y, ek.backend.to_numpy(ek.ops.grouped_matmul(x, w, offsets)), 1e-6)


@pytest.mark.parametrize("rows, groups", [(1, 8), (16, 8), (40, 8), (1000, 8), (100_000, 4)])
def test_blocks_are_few_and_hardly_padded(rows, groups):
    size = row_blocks.block_size(rows, groups)
    count = (rows + (size - 1) * min(rows, groups)) // size
    assert count <= max(rows, groups) if size == 1 else count * size <= 1.5 * rows + groups


def test_what_cannot_be_multiplied_is_refused(rng):
    x, w, offsets = _inputs(rng, "even")
    with pytest.raises(ValueError, match="width D of w"):
        ek.ops.grouped_matmul(x[:, :3], w, offsets)
    with pytest.raises(ValueError, match=r"expected \(E \+ 1,\) = \(4,\)"):
        ek.ops.grouped_matmul(x, w, offsets[:-1])
    with pytest.raises(TypeError, match="expected integers"):
        ek.ops.grouped_matmul(x, w, offsets.astype("float32"))
    with pytest.raises(TypeError, match="expected one dtype"):
        ek.ops.grouped_matmul(x, w.astype("float16"), offsets)
