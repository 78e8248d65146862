"""The long convolution engine against its naive form: outputs, gradients, masks, segments."""

from functools import partial

import numpy as np
import pytest
from engines.support import (
    LENGTHS,
    compiled,
    error,
    fast,
    finite_differences,
    gradients,
    mask_of,
    normal,
    rng,
    segments_of,
    trains,
)
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state, naive, parallel

OPTIONS = {
    "causal": {},
    "bidirectional": {"causal": False},
    "segments": {"segment_ids": True},
    "bidirectional segments": {"segment_ids": True, "causal": False},
    "left": {"mask": "left"},
    "right": {"mask": "right"},
    "both": {"mask": "both"},
    "interior": {"mask": "interior"},
    "bidirectional interior": {"mask": "interior", "causal": False},
    "interior segments": {"mask": "interior", "segment_ids": True},
    "everything, bidirectional": {"mask": "interior", "segment_ids": True, "causal": False},
}
TAPS = {"one": lambda t: 1, "four": lambda t: 4, "nineteen": lambda t: 19,
        "all": lambda t: t, "longer": lambda t: 2 * t + 3}  # fmt: skip


def inputs(time, taps, batch=2, width=5, seed=0):
    g = rng(seed, time, taps)
    return normal(g, batch, time, width), normal(g, taps, width), normal(g, width)


def options_of(name, batch, time):
    g = rng(7, time)
    options = dict(OPTIONS[name])
    if "mask" in options:
        options["mask"] = mask_of(g, batch, time, options["mask"])
    if "segment_ids" in options:
        options["segment_ids"] = segments_of(g, batch, time)
    return options


CASES = [(63, "all", name) for name in OPTIONS] + [
    (100, taps, name) for name in ("causal", "everything, bidirectional") for taps in TAPS
] + [
    (time, "all", name) for time in LENGTHS if time not in (63, 100)
    for name in ("causal", "interior segments")
]  # fmt: skip


@pytest.mark.parametrize("time, taps, name", CASES)
def test_output_and_gradients(time, taps, name):
    """Outputs, and gradients by name where the backend trains, are those of the naive form."""
    u, k, d = inputs(time, TAPS[taps](time))
    options = options_of(name, 2, time)
    expected = naive.fft_conv(u, k, d, **options)
    if not backend.capabilities().trains:
        assert error(fft_conv(u, k, d, **options), expected) < 2e-6
        return
    slope = normal(rng(3), *u.shape)
    found = gradients(lambda *x: fft_conv(*x, **options), "ukd", (u, k, d), slope)
    assert error(found.pop("output"), expected) < 2e-6
    expected = naive.gradients(u, k, d, slope, **options)
    for each in "ukd":
        assert error(found[each], expected[each]) < 3e-6, each


@pytest.mark.parametrize("name", ("causal", "bidirectional", "interior segments"))
def test_output_at_2000(name):
    u, k, d = inputs(2000, 2000)
    options = options_of(name, 2, 2000)
    got = fast(lambda *x: fft_conv(*x, **options))(u, k, d)
    assert error(got, naive.fft_conv(u, k, d, **options)) < 2e-6


def test_any_length_and_any_number_of_taps():
    for time in (1, 31, 97):
        for taps in (16, 17, 96, 98, 193, 500):
            u, k, d = inputs(time, taps, batch=1, width=2)
            for causal in (True, False):
                got = fast(partial(fft_conv, causal=causal))(u, k, d)
                assert error(got, naive.fft_conv(u, k, d, causal=causal)) < 2e-6, (time, taps)


def test_without_skip():
    u, k, _ = inputs(20, 20)
    assert error(fft_conv(u, k), naive.fft_conv(u, k)) < 2e-6


@pytest.mark.parametrize("taps", (40, 4))
@pytest.mark.parametrize("name", OPTIONS)
def test_gates(name, taps):
    u, k, d = inputs(40, taps)
    gates = [normal(rng(8, each), *u.shape) for each in range(2)]
    options = options_of(name, 2, 40)
    named = dict(zip(("gate_in", "gate_out"), gates, strict=True))
    expected = naive.fft_conv(u, k, d, **named, **options)
    x = np.multiply(gates[0], u, dtype="float64")
    y = naive.fft_conv(x, k, d, **options)
    np.testing.assert_allclose(expected, y * gates[1], rtol=1e-12)

    def gated(u, k, d, gate_in, gate_out):
        return fft_conv(u, k, d, gate_in=gate_in, gate_out=gate_out, **options)

    if not backend.capabilities().trains:
        assert error(gated(u, k, d, *gates), expected) < 2e-6
        return
    slope = normal(rng(3), *u.shape)
    found = gradients(gated, "ukdio", (u, k, d, *gates), slope)
    assert error(found.pop("output"), expected) < 2e-6
    inner = naive.gradients(x, k, d, slope * gates[1], **options)
    expected = {"i": inner["u"] * u, "o": slope * y, "k": inner["k"], "d": inner["d"]}
    for each, value in {**expected, "u": inner["u"] * gates[0]}.items():
        assert error(found[each], value) < 3e-6, each


def test_gates_in_chunks_and_steps():
    u, k, d = inputs(30, 30)
    gates = [normal(rng(8, each), *u.shape) for each in range(2)]
    state, rows = fft_conv_state(2, 5, max_length=30), []
    for start, stop in ((0, 11), (11, 12), (12, 30)):
        parts = {
            name: gate[:, start:stop]
            for name, gate in zip(("gate_in", "gate_out"), gates, strict=True)
        }
        options = {"initial_state": state, "return_state": True, **parts}
        y, state = fft_conv(u[:, start:stop], k, d, **options)
        rows.append(backend.to_numpy(y))
    expected = naive.fft_conv(u, k, d, gate_in=gates[0], gate_out=gates[1])
    assert error(np.concatenate(rows, axis=1), expected) < 2e-6


def test_a_gate_of_another_shape_is_refused():
    u, k, _ = inputs(20, 20)
    with pytest.raises(ValueError, match="the T of gate_out = 19; expected 20, as in u"):
        fft_conv(u, k, gate_out=u[:, 1:])
    with pytest.raises(ValueError, match="gate_in of shape"):
        fft_conv(u, k, gate_in=u[0])


@trains
def test_gradients_at_2000():
    u, k, d = inputs(2000, 2000)
    slope = normal(rng(3), *u.shape)
    found = gradients(fft_conv, "ukd", (u, k, d), slope)
    expected = naive.gradients(u, k, d, slope)
    for each in "ukd":
        assert error(found[each], expected[each]) < 3e-6, each


@trains
@pytest.mark.parametrize("setting", ("auto", "portable"))
def test_second_derivatives_are_finite_differences(setting, monkeypatch):
    """Of the gradient along a direction, with what the forward pass kept for the gradient."""
    monkeypatch.setenv("EMBER_KERNELS", setting)
    tensors = [ops.convert_to_tensor(x) for x in inputs(20, 20)]
    along = [ops.convert_to_tensor(normal(rng(6, at), *x.shape)) for at, x in enumerate(tensors)]

    def slopes(*tensors):
        return backend.value_and_grad(lambda *x: ops.sum(ops.sin(fft_conv(*x))))(*tensors)[1]

    def product(*tensors):
        pairs = zip(slopes(*tensors), along, strict=True)
        return sum(ops.sum(slope * direction) for slope, direction in pairs)

    found = backend.value_and_grad(product)(*tensors)[1]
    step = 0.01
    moved = (
        slopes(*(x + sign * step * v for x, v in zip(tensors, along, strict=True)))
        for sign in (1, -1)
    )
    for got, above, below in zip(found, *moved, strict=True):
        expected = (backend.to_numpy(above) - backend.to_numpy(below)) / (2 * step)
        assert error(got, expected) < 5e-3


@pytest.mark.parametrize("name", ("causal", "everything, bidirectional"))
def test_naive_gradients_are_finite_differences(name):
    tensors = dict(zip("ukd", (x.astype("float64") for x in inputs(9, 12)), strict=True))
    options = options_of(name, 2, 9)
    slope = rng(4).normal(size=tensors["u"].shape)
    analytic = naive.gradients(**tensors, cotangent=slope, **options)
    for each, x in tensors.items():
        positions = [tuple(rng(5, at).integers(0, x.shape)) for at in range(20)]

        def loss(moved, each=each):
            return np.sum(slope * naive.fft_conv(**{**tensors, each: moved}, **options))

        numeric = finite_differences(loss, x, positions)
        np.testing.assert_allclose(
            numeric, [analytic[each][p] for p in positions], rtol=1e-6, atol=1e-8
        )


def test_padding_of_any_value_changes_nothing():
    u, k, d = inputs(40, 40)
    mask = mask_of(rng(2), 2, 40, "interior")
    bad = np.where(mask[:, :, None], u, np.nan)
    assert error(fft_conv(bad, k, d, mask=mask), naive.fft_conv(u, k, d, mask=mask)) < 2e-6


def test_the_future_changes_nothing():
    u, k, d = inputs(40, 40)
    before = backend.to_numpy(fft_conv(u, k, d))[:, :20]
    u[:, 20:] = 1.0
    after = backend.to_numpy(fft_conv(u, k, d))[:, :20]
    np.testing.assert_allclose(after, before, atol=2e-5)


@pytest.mark.parametrize("taps", (3, 100))
def test_packed_segments_equal_separate_sequences(taps):
    u, k, d = inputs(100, taps, batch=1)
    ids = np.array([[0] * 33 + [1] * 1 + [0] * 66])
    packed = backend.to_numpy(fast(partial(fft_conv, segment_ids=ids))(u, k, d))
    for a, b in ((0, 33), (33, 34), (34, 100)):
        alone = naive.fft_conv(u[:, a:b], k, d)
        np.testing.assert_allclose(packed[:, a:b], alone, atol=5e-5)


@pytest.mark.parametrize("dtype, tolerance", (("float16", 2e-3), ("bfloat16", 2e-2)))
@pytest.mark.parametrize("taps", (4, 63))
def test_half_precision(taps, dtype, tolerance):
    u, k, d = inputs(63, taps)
    got = fft_conv(*(ops.cast(x, dtype) for x in (u, k, d)))
    assert dtype in str(got.dtype)
    assert error(ops.cast(got, "float32"), naive.fft_conv(u, k, d)) < tolerance


@pytest.mark.parametrize("name", ("causal", "interior segments"))
def test_compiled_equals_eager(name):
    u, k, d = inputs(63, 63)
    options = options_of(name, 2, 63)
    function, count = compiled(lambda *x: fft_conv(*x, **options))
    tensors = [ops.convert_to_tensor(x) for x in (u, k, d)]
    for _ in range(3):
        got = function(*tensors)
    assert len(count) == 1
    assert error(got, naive.fft_conv(u, k, d, **options)) < 2e-6


def test_fft_lengths_are_even_smooth_and_near():
    for least in range(1, 3000):
        n = parallel.fft_length(least)
        assert least <= n <= max(2, 1.2 * least + 2) and n % 2 == 0
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        assert n == 1


@pytest.mark.parametrize(
    "change, words",
    (
        ({"u": np.ones((2, 5), "float32")}, "expected (B, T, D)"),
        ({"u": np.ones((2, 0, 5), "float32")}, "at least one"),
        ({"k": np.ones((0, 5), "float32")}, "at least one"),
        ({"k": np.ones((3, 4), "float32")}, "divisor of the width D = 5"),
        ({"d": np.ones((4,), "float32")}, "width D of d"),
        ({"d": np.ones((5, 1), "float32")}, "expected (D,)"),
        ({"causal": False, "return_state": True}, "Drop the state"),
        ({"mask": np.ones((2, 6), bool)}, "mask of shape"),
        ({"initial_state": {"key": 0}}, "fft_conv_state"),
    ),
)
def test_bad_input_is_refused(change, words):
    u, k, d = inputs(5, 5)
    with pytest.raises(ValueError) as raised:
        fft_conv(**{"u": u, "k": k, "d": d, **change})
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "kind", ({}, {"max_length": 40}, {"taps": 20}, {"max_length": 40, "k": 40})
)
def test_a_state_of_another_batch_or_width_is_refused(kind):
    g = rng(5)
    u, k = normal(g, 3, 7, 4), normal(g, 20, 4)
    kind = {**kind, "k": normal(g, 40, 4)} if "k" in kind else kind
    whole = fft_conv_state(3, 4, **kind)
    fft_conv(u, k, initial_state=whole)
    wrong = [fft_conv_state(2, 4, **kind)]
    if "k" in kind:
        wrong.append({**whole, "blocks": whole["blocks"][:1]})
        wrong.append({**whole, "flows": [each[:, :, :2] for each in whole["flows"]]})
        wrong.append({**whole, "soon": whole["soon"][:, :3]})
        wrong.append({**whole, "stale": whole["stale"][:1]})
    else:
        wrong.append(fft_conv_state(3, 5, **kind))
    if "length" in whole:
        wrong.append({**whole, "length": whole["length"][:2]})
    for state in wrong:
        for chunk in (u, u[:, :1]):
            with pytest.raises(ValueError, match="Received an initial_state w"):
                fft_conv(chunk, k, initial_state=state, return_state=True)


def test_arrays_in_any_order_of_bytes_and_with_any_steps():
    g = rng(6)
    u, k = normal(g, 2, 30, 4), normal(g, 30, 4)
    packed = np.zeros(u.shape, [("flag", "u1"), ("value", "f4")])
    packed["value"] = u
    expected = fft_conv(u, k)
    for given in (u.astype(">f4"), packed["value"]):
        assert error(fft_conv(given, k.astype(">f4")), backend.to_numpy(expected)) == 0
    with pytest.raises(TypeError, match="Received u with the fields flag, value"):
        fft_conv(packed, k)
