"""The nonlinear scan engine against its naive form: outputs, states, gradients, options."""

import dataclasses

import numpy as np
import pytest
from engines import support
from engines.support import (
    compiled,
    error,
    fast,
    finite_differences,
    mask_of,
    normal,
    rng,
    segments_of,
    trains,
)
from keras import ops, tree

from ember_keras import backend
from ember_keras.ops.engines.nonlinear_scan import naive, nonlinear_scan

BATCH, WIDTH = 2, 3


def gradients(function, names, tensors, cotangent):
    """As the shared one, eagerly under mlx, which takes seconds to compile an unrolled loop."""
    if backend.name() != "mlx":
        return support.gradients(function, names, tensors, cotangent)
    tensors, weigh = [ops.convert_to_tensor(x) for x in tensors], ops.convert_to_tensor(cotangent)
    total = backend.value_and_grad(lambda *x: ops.sum(function(*x) * weigh))
    return {"output": function(*tensors), **dict(zip(names, total(*tensors)[1], strict=True))}


NAMES = ("x", "rate", "r", "b", "hidden", "slow")


class Numpy:
    """What the cell needs, in numpy, for the naive form."""

    matmul, tanh, exp = staticmethod(np.matmul), staticmethod(np.tanh), staticmethod(np.exp)


def body(lib, x, state, w):
    """A cell of two states and two inputs, with a decay of any size in it."""
    hidden = lib.tanh(x["x"] + lib.matmul(state["hidden"], w["r"]) + w["b"])
    slow = lib.exp(-x["rate"]) * state["slow"] + hidden * state["hidden"]
    return {"a": hidden * slow, "b": slow[:, :1]}, {"hidden": hidden, "slow": slow}


def cell(x, state, w):
    return body(ops, x, state, w)


def naive_cell(x, state, w):
    return body(Numpy, x, state, w)


def inputs(time, seed=0, batch=BATCH):
    """Inputs, with decays down to e^-20 a position; weights; initial states."""
    g = rng(seed, time)
    rate = 20 * g.random((batch, time, WIDTH)).astype("float32") ** 4
    return (
        normal(g, batch, time, WIDTH),
        rate,
        normal(g, WIDTH, WIDTH) / 3,
        normal(g, WIDTH),
        normal(g, batch, WIDTH),
        normal(g, batch, WIDTH),
    )


FRESH = {
    "hidden": np.full((1, WIDTH), 0.3, "float32"),
    "slow": np.full((1, WIDTH), -0.2, "float32"),
}


def run(engine, cell, tensors, fresh=FRESH, **options):
    x, rate, r, b, hidden, slow = tensors
    y, state = engine(
        cell,
        {"x": x, "rate": rate},
        weights={"r": r, "b": b},
        initial_state={"hidden": hidden, "slow": slow},
        fresh_state=fresh,
        return_state=True,
        **options,
    )
    return y["a"], y["b"], state["hidden"], state["slow"]


def scalar_form(slopes):
    def total(*tensors, **options):
        found = run(nonlinear_scan, cell, tensors, **options)
        return sum(
            ops.sum(a * ops.convert_to_tensor(s)) for a, s in zip(found, slopes, strict=True)
        )

    return total


def naive_total(tensors, slopes, **options):
    found = run(naive.nonlinear_scan, naive_cell, tensors, **options)
    return float(sum(np.sum(a * s) for a, s in zip(found, slopes, strict=True)))


def check_gradients(time, tolerance=2e-5, **options):
    """Every gradient, along random directions, is the central difference of the naive form."""
    tensors = inputs(time)
    g = rng(9, time)
    shapes = [a.shape for a in run(naive.nonlinear_scan, naive_cell, tensors)]
    slopes = [normal(g, *shape) for shape in shapes]
    form = scalar_form(slopes)
    found = gradients(lambda *x: form(*x, **options), NAMES, tensors, np.float32(1.0))
    assert error(found["output"], np.array(naive_total(tensors, slopes, **options))) < 2e-5
    for at, name in enumerate(NAMES):
        value = tensors[at].astype("float64")
        for _ in range(2):
            direction = g.normal(size=value.shape)
            direction /= np.linalg.norm(direction)

            def along(step, at=at, value=value, direction=direction):
                moved = [*tensors[:at], value + step * direction, *tensors[at + 1 :]]
                return naive_total(moved, slopes, **options)

            expected = (along(1e-5) - along(-1e-5)) / 2e-5
            given = backend.to_numpy(found[name]).astype("float64")
            scale = max(1.0, np.linalg.norm(given))
            assert abs(np.sum(given * direction) - expected) / scale < tolerance, name


def options_of(name, time):
    g, options = rng(7, time), {}
    if "mask" in name:
        options["mask"] = mask_of(g, BATCH, time, "interior")
    if "segments" in name:
        options["segment_ids"] = segments_of(g, BATCH, time)
    if "unroll" in name:
        options["unroll"] = 4
    if "recompute" in name:
        options["recompute"] = True
    return options


CASES = ("plain", "mask", "segments", "mask segments", "unroll", "recompute",
         "mask segments unroll recompute")  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_states(name):
    for time in (1, 63) if name != "plain" else (1, 2, 63, 100, 257):
        tensors, options = inputs(time), options_of(name, time)
        expected = run(naive.nonlinear_scan, naive_cell, tensors, **options)
        got = run(nonlinear_scan, cell, tensors, **options)
        for a, b in zip(got, expected, strict=True):
            assert error(a, b) < 2e-6, time


def test_outputs_at_2000():
    tensors = inputs(2000)
    expected = run(naive.nonlinear_scan, naive_cell, tensors)
    for a, b in zip(run(nonlinear_scan, cell, tensors), expected, strict=True):
        assert error(a, b) < 3e-6


@trains
@pytest.mark.parametrize("name", CASES)
def test_every_gradient(name):
    for time in (5, 63) if name != "plain" else (1, 63, 100):
        check_gradients(time, **options_of(name, time))


@trains
@pytest.mark.parametrize("name", ("plain", "mask segments", "recompute"))
def test_gradients_at_257(name):
    check_gradients(257, 4e-5, **options_of(name, 257))


@trains
@pytest.mark.parametrize("name", ("plain", "mask segments", "unroll", "recompute"))
def test_truncation_is_that_of_chunks_with_a_detached_state(name):
    time, every = 23, 5
    options = options_of(name, time)
    tensors = inputs(time)
    slope = normal(rng(3), BATCH, time, WIDTH)
    whole = gradients(
        lambda *x: run(nonlinear_scan, cell, x, truncate=every, **options)[0],
        NAMES, tensors, slope,
    )  # fmt: skip

    def chunks(x, rate, r, b, hidden, slow):
        outputs, previous = [], None
        for start in range(0, time, every):
            part = slice(start, start + every)
            here = {k: v[:, part] if np.ndim(v) == 2 else v for k, v in options.items()}
            if "segment_ids" in here and previous is not None:
                pytest.fail("segments are compared below")
            a, _, hidden, slow = run(
                nonlinear_scan, cell, (x[:, part], rate[:, part], r, b, hidden, slow), **here
            )
            hidden, slow = ops.stop_gradient(hidden), ops.stop_gradient(slow)
            outputs.append(a)
        return ops.concatenate(outputs, axis=1)

    if "segments" in name:
        # No gradient reaches a position from beyond the next cut.
        late = np.zeros_like(slope)
        late[:, 20:] = slope[:, 20:]
        found = gradients(
            lambda *x: run(nonlinear_scan, cell, x, truncate=every, **options)[0],
            NAMES, tensors, late,
        )  # fmt: skip
        assert not backend.to_numpy(found["x"])[:, :20].any()
        assert backend.to_numpy(found["x"])[:, 20:].any()
        return
    expected = gradients(chunks, NAMES, tensors, slope)
    for each in (*NAMES, "output"):
        assert error(whole[each], backend.to_numpy(expected[each])) < 5e-6, each


def test_chunks_and_steps_equal_the_whole():
    tensors = inputs(23)
    mask, ids = mask_of(rng(4), BATCH, 23, "interior"), np.zeros((BATCH, 23), "int32")
    expected = run(naive.nonlinear_scan, naive_cell, tensors, mask=mask)
    for cuts in ((0, 9, 10, 11, 23), range(24)):
        x, rate, r, b, *state = tensors
        outputs = []
        for start, end in zip(cuts[:-1], cuts[1:], strict=True):
            part = slice(start, end)
            a, _, *state = run(
                nonlinear_scan, cell, (x[:, part], rate[:, part], r, b, *state),
                mask=mask[:, part], segment_ids=ids[:, part],
            )  # fmt: skip
            outputs.append(backend.to_numpy(a))
        assert error(np.concatenate(outputs, axis=1), expected[0]) < 2e-6
        assert error(state[0], expected[2]) < 2e-6


def test_padding_is_not_there():
    tensors, mask = inputs(30), mask_of(rng(5), BATCH, 30, "both")
    bad = [*(np.where(mask[..., None], x, np.nan) for x in tensors[:2]), *tensors[2:]]
    expected = run(naive.nonlinear_scan, naive_cell, tensors, mask=mask)
    for a, b in zip(run(nonlinear_scan, cell, bad, mask=mask), expected, strict=True):
        assert error(a, b) < 2e-6
    if backend.capabilities().trains:
        found = gradients(
            lambda *x: run(nonlinear_scan, cell, x, mask=mask)[0], NAMES, bad,
            normal(rng(3), BATCH, 30, WIDTH),
        )  # fmt: skip
        assert all(np.isfinite(backend.to_numpy(g)).all() for g in found.values())


def test_a_cell_that_closes_over_its_weights():
    x, rate, r, b, *_ = tensors = inputs(20)
    r, b = ops.convert_to_tensor(r), ops.convert_to_tensor(b)
    given = {"x": x, "rate": rate}

    def closed(r):
        return nonlinear_scan(
            lambda x, state: cell(x, state, {"r": r, "b": b}), given, fresh_state=FRESH
        )["a"]

    expected = nonlinear_scan(cell, given, weights={"r": r, "b": b}, fresh_state=FRESH)["a"]
    assert error(closed(r), backend.to_numpy(expected)) < 1e-6
    if backend.capabilities().trains:
        slope = normal(rng(3), BATCH, 20, WIDTH)
        with_weights = gradients(
            lambda r: nonlinear_scan(cell, given, weights={"r": r, "b": b}, fresh_state=FRESH)["a"],
            "r", tensors[2:3], slope,
        )  # fmt: skip
        found = gradients(closed, "r", tensors[2:3], slope)
        assert error(found["r"], backend.to_numpy(with_weights["r"])) < 3e-6


@dataclasses.dataclass(frozen=True)
class Power:
    """A cell whose number of products is an argument."""

    times: int

    def __call__(self, x, state):
        for _ in range(self.times):
            x = x * 0.5 + 0.25 * state
        return x, x


def test_equal_cells_share_and_others_do_not():
    x = normal(rng(6), 2, 9, 4)
    zeros = np.zeros((1, 4), "float32")
    for times in (1, 3, 1):
        got = nonlinear_scan(Power(times), x, fresh_state=zeros)
        assert error(got, naive.nonlinear_scan(Power(times), x, fresh_state=zeros)) < 1e-6


def test_64k_positions_are_finite_and_right():
    time = 65536 if backend.name() != "mlx" else 16384
    x = normal(rng(8), 1, time, 2)

    def walk(lib):
        return lambda x, s: (s, lib.tanh(x + 1.5 * s))

    got = backend.to_numpy(
        fast(lambda x: nonlinear_scan(walk(ops), x, fresh_state=np.zeros((1, 2), "float32")))(x)
    )
    state, expected = np.zeros(2), []
    for t in range(time):
        expected.append(state)
        state = np.tanh(x[0, t].astype("float64") + 1.5 * state)
    assert np.abs(got[0] - np.array(expected)).max() < 1e-4


@pytest.mark.parametrize("dtype, tolerance", (("float16", 2e-3), ("bfloat16", 2e-2)))
def test_half_precision(dtype, tolerance):
    tensors = [ops.cast(x, dtype) for x in inputs(63)]
    exact = [backend.to_numpy(ops.cast(x, "float32")) for x in tensors]
    expected = run(naive.nonlinear_scan, naive_cell, exact)
    got = run(nonlinear_scan, cell, tensors)
    assert dtype in str(got[0].dtype) and "float32" in str(got[2].dtype)
    for a, b in zip(got, expected, strict=True):
        assert error(ops.cast(a, "float32"), b) < tolerance


def test_compiled_equals_eager_and_a_shape_is_traced_once():
    tensors, options = inputs(63), options_of("mask segments unroll", 63)
    function, count = compiled(lambda *x: run(nonlinear_scan, cell, x, **options)[0])
    given = [ops.convert_to_tensor(x) for x in tensors]
    for _ in range(3):
        got = function(*given)
    assert len(count) == 1
    assert error(got, run(naive.nonlinear_scan, naive_cell, tensors, **options)[0]) < 2e-6


def test_torch_compiles_without_a_graph_break():
    if backend.name() != "torch":
        pytest.skip("torch.compile is torch's")
    import torch

    tensors = [ops.convert_to_tensor(x) for x in inputs(6)]
    fresh = {name: ops.convert_to_tensor(value) for name, value in FRESH.items()}
    expected = run(naive.nonlinear_scan, naive_cell, inputs(6))[0]
    for how in ("eager", "aot_eager"):
        torch._dynamo.reset()
        function = torch.compile(
            lambda *x: run(nonlinear_scan, cell, x, fresh)[0], backend=how, fullgraph=True
        )
        assert error(function(*tensors), expected) < 2e-6


def test_xla_of_tensorflow_compiles_the_gradient():
    if backend.name() != "tensorflow":
        pytest.skip("jit_compile=True of tensorflow")
    import tensorflow as tf

    tensors, options = inputs(9), options_of("mask segments unroll recompute", 9)
    slopes = [np.ones(1, "float32")] * 4
    total = backend.value_and_grad(lambda *x: scalar_form(slopes)(*x, **options))
    given = [tf.convert_to_tensor(x) for x in tensors]
    expected, by_xla = total(*given), tf.function(total, jit_compile=True)(*given)
    for a, b in zip(tree.flatten(by_xla), tree.flatten(expected), strict=True):
        assert error(a, b.numpy()) < 1e-5


def test_memory_of_a_compiled_gradient_of_mlx_is_that_of_its_inputs():
    """The gradient of each position's slice, as long as the sequence, would be 100 times that."""
    if backend.name() != "mlx":
        pytest.skip("mlx writes the loop out")
    import mlx.core as mx

    def leaky(x, state, r):
        state = ops.tanh(x + ops.matmul(state, r))
        return state, state

    def loss(x, r):
        y = nonlinear_scan(leaky, x, weights=r, fresh_state=np.zeros((1, 32), "float32"))
        return ops.sum(ops.square(y))

    x, r = (ops.convert_to_tensor(normal(rng(4), *shape)) for shape in ((1, 512, 32), (32, 32)))
    run = backend.compile(backend.value_and_grad(loss))
    mx.eval(x, r)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(*tree.flatten(run(x, r)))
    assert mx.get_peak_memory() - before < 20 * x.nbytes


def test_naive_gradients_can_be_trusted():
    """The finite differences that the tests stand on, against a closed form."""
    x = rng(2).normal(size=(1, 3, 1))
    zeros = np.zeros((1, 1))

    def last(x):
        y = naive.nonlinear_scan(lambda x, s: (s * x, s + x), x, fresh_state=zeros)
        return float(y[0, 2, 0])

    found = finite_differences(last, x, [(0, 0, 0), (0, 1, 0), (0, 2, 0)])
    np.testing.assert_allclose(found, [x[0, 2, 0], x[0, 2, 0], x[0, 0, 0] + x[0, 1, 0]], atol=1e-8)


@pytest.mark.parametrize(
    "options, words",
    (
        ({"unroll": 0}, "unroll=0"),
        ({"truncate": 0}, "truncate=0"),
        ({"fresh_state": None}, "neither initial_state nor fresh_state"),
        ({"mask": np.ones((2, 9), bool)}, "mask of shape"),
        ({"initial_state": np.zeros((3, 4), "float32")}, "initial_state of shape"),
    ),
)
def test_bad_arguments_are_refused(options, words):
    x, zeros = np.ones((2, 5, 4), "float32"), np.zeros((1, 4), "float32")
    with pytest.raises(ValueError, match=words):
        nonlinear_scan(lambda x, s: (s, x), x, **{"fresh_state": zeros, **options})


def test_a_state_of_another_shape_is_refused():
    x, zeros = np.ones((2, 5, 4), "float32"), np.zeros((1, 4), "float32")
    with pytest.raises(ValueError, match="makes a state of shapes"):
        nonlinear_scan(lambda x, s: (s, x[:, :2]), x, fresh_state=zeros)


def test_an_input_without_positions_is_refused():
    with pytest.raises(ValueError, match=r"expected \(B, T, ...\)"):
        nonlinear_scan(lambda x, s: (s, s), np.ones(3, "float32"), fresh_state=np.zeros((1, 3)))
