"""Filters that neighbouring channels share, in every form of the long convolution."""

import numpy as np
import pytest
from engines.support import (
    compiled,
    error,
    fast,
    finite_differences,
    gradients,
    normal,
    rng,
    trains,
)
from engines.test_engine_fft_conv import OPTIONS, options_of
from keras import ops

from ember_keras import backend
from ember_keras.ops import kernels
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state, naive
from ember_keras.ops.kernels import table

BATCH, WIDTH = 2, 6


def inputs(time, taps, filters=2, skips=None, seed=0):
    g = rng(seed, time, taps, filters)
    skips = filters if skips is None else skips
    return normal(g, BATCH, time, WIDTH), normal(g, taps, filters), normal(g, skips)


CASES = [(63, 63, 2, name) for name in OPTIONS] + [
    (time, taps, filters, "everything, bidirectional" if filters == 1 else "interior segments")
    for filters in (1, 3, 6) for time, taps in ((1, 1), (63, 4), (63, 19), (100, 203))
]  # fmt: skip


@pytest.mark.parametrize("time, taps, filters, name", CASES)
def test_output_and_gradients(time, taps, filters, name):
    """As the naive form, and that as one filter a channel, whose gradients it sums."""
    u, k, d = inputs(time, taps, filters)
    options = options_of(name, BATCH, time)
    expected = naive.fft_conv(u, k, d, **options)
    alone = [np.repeat(x, WIDTH // filters, axis=-1) for x in (k, d)]
    assert error(naive.fft_conv(u, *alone, **options), expected) == 0
    if not backend.capabilities().trains:
        assert error(fft_conv(u, k, d, **options), expected) < 2e-6
        return
    slope = normal(rng(3), *u.shape)
    found = gradients(lambda *x: fft_conv(*x, **options), "ukd", (u, k, d), slope)
    assert error(found.pop("output"), expected) < 2e-6
    expected = naive.gradients(u, k, d, slope, **options)
    for each in "ukd":
        assert error(found[each], expected[each]) < 3e-6, each


def test_naive_gradients_are_finite_differences():
    tensors = dict(zip("ukd", (x.astype("float64") for x in inputs(9, 12)), strict=True))
    slope = rng(4).normal(size=tensors["u"].shape)
    analytic = naive.gradients(**tensors, cotangent=slope)
    for each, x in tensors.items():
        positions = [tuple(rng(5, at).integers(0, x.shape)) for at in range(20)]

        def loss(moved, each=each):
            return np.sum(slope * naive.fft_conv(**{**tensors, each: moved}))

        numeric = finite_differences(loss, x, positions)
        np.testing.assert_allclose(
            numeric, [analytic[each][p] for p in positions], rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("skips", (2, 6))
def test_skips_are_one_a_filter_or_one_a_channel(skips):
    u, k, d = inputs(20, 20, skips=skips)
    expected = naive.fft_conv(u, k, np.repeat(d, WIDTH // skips))
    assert error(fft_conv(u, k, d), expected) < 2e-6
    assert error(naive.fft_conv(u, k, d), expected) == 0


@pytest.mark.parametrize("setting", ("auto", "portable"))
@pytest.mark.parametrize("taps", (5, 40))
def test_every_kernel_computes_the_same(setting, taps, monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", setting)
    u, k, d = inputs(40, taps)
    assert error(fft_conv(u, k, d), naive.fft_conv(u, k, d)) < 2e-6


def test_a_kernel_receives_the_filters_as_they_are(monkeypatch):
    shapes = []

    def run(u, k, d, **_):
        shapes.append((tuple(k.shape), tuple(d.shape)))
        return u * 0

    monkeypatch.setattr(table, "_KERNELS", {})
    kernels.register(
        kernels.Kernel("seen", "fft_conv", (backend.name(),), lambda request: None, run)
    )
    fft_conv(*inputs(30, 30))
    assert shapes == [((30, 2), (WIDTH,))]
    rows = kernels.explain("fft_conv", u=(2, 30, WIDTH), k=(30, 2))
    assert rows[0].runs


STATES = {
    "growing": lambda k: fft_conv_state(BATCH, WIDTH),
    "fixed": lambda k: fft_conv_state(BATCH, WIDTH, 70),
    "relaxed": lambda k: fft_conv_state(BATCH, WIDTH, 70, k=k),
    "window": lambda k: fft_conv_state(BATCH, WIDTH, taps=int(k.shape[0])),
}


@pytest.mark.parametrize("taps", (4, 40))
@pytest.mark.parametrize("kind", STATES)
def test_chunks_and_steps_are_the_whole(kind, taps):
    u, k, d = inputs(70, taps)
    mask = rng(6).random((BATCH, 70)) < 0.8
    state, outputs = STATES[kind](ops.convert_to_tensor(k)), []
    cuts = [0, 25, 26, 27, 28, 33, *range(51, 71)]

    def run(u, state, mask):
        given = None if kind == "relaxed" and u.shape[1] == 1 else k
        return fft_conv(u, given, d, initial_state=state, return_state=True, mask=mask)

    run = run if kind == "relaxed" else fast(run)
    for a, b in zip(cuts, cuts[1:], strict=False):
        y, state = run(ops.convert_to_tensor(u[:, a:b]), state, mask[:, a:b])
        outputs.append(backend.to_numpy(y))
    expected = naive.fft_conv(u, k, d, mask=mask)
    assert error(np.concatenate(outputs, axis=1), expected) < 3e-6
    if kind == "relaxed":
        assert tuple(state["taps"].shape) == (70, 2)


def test_segments_after_a_past():
    u, k, d = inputs(60, 60)
    ids = np.repeat([[0, 1, 2]], (25, 3, 32), axis=1) * np.ones((BATCH, 1), "int32")
    _, past = fft_conv(u[:, :20], k, d, return_state=True)

    def run(u, past):
        return fft_conv(u, k, d, initial_state=past, segment_ids=ids[:, 20:], return_state=True)

    y, state = fast(run)(ops.convert_to_tensor(u[:, 20:]), past)
    assert error(y, naive.fft_conv(u, k, d, segment_ids=ids)[:, 20:]) < 2e-6
    np.testing.assert_array_equal(backend.to_numpy(state["length"]), [32] * BATCH)


@trains
def test_gradients_flow_through_steps():
    u, k, d = inputs(24, 24)
    slope = normal(rng(3), *u.shape)

    def run(u, k, d):
        y, state = fft_conv(
            u[:, :18], k, d, initial_state=fft_conv_state(BATCH, WIDTH, 24, k=k), return_state=True
        )
        outputs = [y]
        for t in range(18, 24):
            y, state = fft_conv(u[:, t : t + 1], None, d, initial_state=state, return_state=True)
            outputs.append(y)
        return ops.concatenate(outputs, axis=1)

    weigh = ops.convert_to_tensor(slope)
    total = backend.value_and_grad(lambda *x: ops.sum(run(*x) * weigh))
    found = total(*(ops.convert_to_tensor(x) for x in (u, k, d)))[1]
    expected = naive.gradients(u, k, d, slope)
    for each, gradient in zip("ukd", found, strict=True):
        assert error(gradient, expected[each]) < 5e-6, each


@pytest.mark.parametrize("taps", (4, 63))
def test_half_precision(taps):
    u, k, d = inputs(63, taps)
    got = fft_conv(*(ops.cast(x, "bfloat16") for x in (u, k, d)))
    assert error(ops.cast(got, "float32"), naive.fft_conv(u, k, d)) < 2e-2


def test_compiled_equals_eager():
    u, k, d = inputs(63, 63)
    function, count = compiled(fft_conv)
    tensors = [ops.convert_to_tensor(x) for x in (u, k, d)]
    for _ in range(3):
        got = function(*tensors)
    assert len(count) == 1
    assert error(got, naive.fft_conv(u, k, d)) < 2e-6


@pytest.mark.parametrize(
    "run, words",
    (
        (lambda u, k, d: fft_conv(u, np.ones((5, 4), "float32")), "divisor of the width D = 6"),
        (lambda u, k, d: fft_conv(u, np.ones((5, 12), "float32")), "divisor of the width D = 6"),
        (lambda u, k, d: fft_conv(u, np.ones((5, 0), "float32")), "at least one"),
        (lambda u, k, d: fft_conv(u, k, np.ones(3, "float32")), "width D of d"),
        (
            lambda u, k, d: fft_conv_state(2, WIDTH, 9, k=np.ones((5, 4), "float32")),
            "divisor of the width D = 6",
        ),
        (
            lambda u, k, d: fft_conv(
                u, np.ones((5, 3), "float32"), initial_state=fft_conv_state(2, WIDTH, 9, k=k)
            ),
            "number F of filters of k = 3",
        ),
    ),
)
def test_what_cannot_be_shared_is_refused(run, words):
    with pytest.raises(ValueError) as raised:
        run(*inputs(5, 5))
    assert words in str(raised.value)
