"""The diagonal recurrences against their naive forms: outputs, states, gradients, packing."""

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
from ember_keras.ops.engines.linear_recurrence import linear_recurrence, naive, selective_scan

OPTIONS = {
    "plain": {},
    "segments": {"segment_ids": True},
    "left": {"mask": "left"},
    "interior segments": {"mask": "interior", "segment_ids": True},
}
KINDS = ("real", "states", "constant", "log", "complex", "complex constant", "complex log")
WIDTH = 3


def inputs(kind, time, batch=2, seed=0):
    """The parts of a, b and the state, in one flat list."""
    g = rng(seed, time)
    tail = (WIDTH, 2) if kind == "states" else (WIDTH,)
    shape = tail if "constant" in kind else (batch, time, *tail)
    parts = 2 if "complex" in kind else 1
    size = np.exp(-np.exp(g.normal(size=shape) - 1.5)).astype("float32")
    angle = normal(g, *shape)
    if "log" in kind:
        a = [np.log(size), angle]
    else:
        a = [size * np.cos(angle), size * np.sin(angle)] if parts == 2 else [size]
    b = [normal(g, batch, time, *tail) for _ in range(parts)]
    h = [normal(g, batch, *tail) for _ in range(parts)]
    return [*a[:parts], *b, *h]


def call(function, kind, tensors, **options):
    """`function` of flat parts; the output and the state joined along time, parts along a new
    last axis."""
    parts = len(tensors) // 3
    groups = [tuple(tensors[at * parts : (at + 1) * parts]) for at in range(3)]
    a, b, h = groups if parts == 2 else [group[0] for group in groups]
    y, state = function(
        a, b, log_space="log" in kind, initial_state=h, return_state=True, **options
    )
    library = np if function is naive.linear_recurrence else ops
    if parts == 1:
        y, state = (y,), (state,)
    joined = [
        library.concatenate([p, library.expand_dims(q, 1)], axis=1)
        for p, q in zip(y, state, strict=True)
    ]
    return library.stack(joined, axis=-1)


def options_of(name, batch, time):
    g = rng(7, time)
    options = dict(OPTIONS[name])
    if "mask" in options:
        options["mask"] = mask_of(g, batch, time, options["mask"])
    if "segment_ids" in options:
        options["segment_ids"] = segments_of(g, batch, time)
    return options


def naive_gradients(kind, tensors, slope, options):
    """The gradients of the joined output: the state's cotangent falls on the last position.

    The last position is read as one more, which passes the state through: a = 1, b = 0.
    """
    parts = len(tensors) // 3
    a, b, h = (list(tensors[at * parts : (at + 1) * parts]) for at in range(3))
    batch = b[0].shape[0]
    whole = [np.broadcast_to(x, b[0].shape).astype("float64") for x in a]
    neutral = [0.0 if "log" in kind else 1.0, 0.0]
    tail = b[0].shape[2:]
    whole = [
        np.concatenate([x, np.full((batch, 1, *tail), n)], 1)
        for x, n in zip(whole, neutral, strict=False)
    ]
    b = [np.concatenate([x, np.zeros((batch, 1, *tail))], 1) for x in b]
    options = dict(options)
    if "mask" in options:
        options["mask"] = np.concatenate([options["mask"], np.ones((batch, 1), bool)], 1)
    if "segment_ids" in options:
        ids, mask = options["segment_ids"], options.get("mask")
        last = ids[:, -1:].copy()
        if mask is not None:
            for row in range(batch):
                real = np.flatnonzero(mask[row, :-1])
                last[row] = ids[row, real[-1]] if len(real) else last[row]
        options["segment_ids"] = np.concatenate([ids, last], 1)
    pair = parts == 2
    pick = (lambda x: tuple(x)) if pair else (lambda x: x[0])
    cotangent = [slope[..., at] for at in range(parts)]
    found = naive.gradients(
        pick(whole), pick(b), pick(h), pick(cotangent), log_space="log" in kind, **options
    )
    found = {k: v if pair else (v,) for k, v in found.items()}
    da = [x[:, :-1] for x in found["a"]]
    if "constant" in kind:
        da = [x.sum((0, 1)) for x in da]
    return [*da, *(x[:, :-1] for x in found["b"]), *found["initial_state"]]


CASES = [(63, kind, name) for kind in ("real", "complex log") for name in OPTIONS] + [
    (100, kind, name) for kind in KINDS for name in ("plain", "interior segments")
] + [(time, "real", "interior segments") for time in LENGTHS]  # fmt: skip


@pytest.mark.parametrize("time, kind, name", CASES)
def test_output_state_and_gradients(time, kind, name):
    tensors = inputs(kind, time)
    options = options_of(name, 2, time)
    expected = call(naive.linear_recurrence, kind, tensors, **options)

    def run(*x):
        return call(linear_recurrence, kind, x, **options)

    if not backend.capabilities().trains:
        assert error(run(*tensors), expected) < 2e-6
        return
    slope = normal(rng(3), *expected.shape)
    names = [str(at) for at in range(len(tensors))]
    found = gradients(run, names, tensors, slope)
    assert error(found.pop("output"), expected) < 2e-6
    slopes = naive_gradients(kind, tensors, slope, options)
    for each, gradient in zip(names, slopes, strict=True):
        assert error(found[each], gradient) < 5e-6, each


@pytest.mark.parametrize("kind", ("real", "complex constant"))
def test_at_2000(kind):
    tensors = inputs(kind, 2000)
    got = fast(lambda *x: call(linear_recurrence, kind, x))(*tensors)
    assert error(got, call(naive.linear_recurrence, kind, tensors)) < 3e-6


@pytest.mark.parametrize("kind", ("real", "log", "complex", "complex log"))
def test_naive_gradients_are_finite_differences(kind):
    tensors = [x.astype("float64") for x in inputs(kind, 9)]
    options = options_of("interior segments", 2, 9)
    slope = rng(4).normal(size=call(naive.linear_recurrence, kind, tensors, **options).shape)
    analytic = naive_gradients(kind, tensors, slope, options)
    for at, x in enumerate(tensors):
        positions = [tuple(rng(5, n).integers(0, x.shape)) for n in range(12)]

        def loss(moved, at=at):
            changed = [*tensors[:at], moved, *tensors[at + 1 :]]
            return np.sum(slope * call(naive.linear_recurrence, kind, changed, **options))

        numeric = finite_differences(loss, x, positions)
        np.testing.assert_allclose(
            numeric, [analytic[at][p] for p in positions], rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("log_space", (False, True))
@pytest.mark.parametrize("decay", (np.exp(-20.0), 1 - 2.0**-20))
def test_long_sequences_and_any_decay(decay, log_space):
    """64k positions: forgotten at once, or hardly at all."""
    time = 65536
    b = normal(rng(1), 1, time, 2)
    a = np.full((2,), np.log(decay) if log_space else decay, "float32")
    got = backend.to_numpy(fast(lambda a, b: linear_recurrence(a, b, log_space=log_space))(a, b))
    h, at = np.zeros(2), {}
    for t in range(time):
        h = decay * h + b[0, t]
        at[t] = h
    scale = max(np.abs(h).max() for h in at.values())
    # A logarithm near 0 is exact, and its exponential is rounded as any float32 near 1.
    tolerance = 1e-3 if log_space else 1e-5
    for t in (1, 1000, 40000, time - 1):
        np.testing.assert_allclose(got[0, t], at[t], atol=tolerance * scale)


def test_padding_of_any_value_changes_nothing():
    a, b, h = inputs("log", 40)
    mask = mask_of(rng(2), 2, 40, "interior")
    bad_a, bad_b = (np.where(mask[:, :, None], x, np.nan) for x in (a, b))
    expected = call(naive.linear_recurrence, "log", (a, b, h), mask=mask)
    assert error(call(linear_recurrence, "log", (bad_a, bad_b, h), mask=mask), expected) < 2e-6
    if backend.capabilities().trains:
        found = gradients(
            lambda *x: call(linear_recurrence, "log", x, mask=mask),
            "abh", (bad_a, bad_b, h), normal(rng(3), *expected.shape),
        )  # fmt: skip
        assert all(np.isfinite(backend.to_numpy(x)).all() for x in found.values())


@pytest.mark.parametrize("name", ("plain", "interior segments"))
def test_chunks_and_steps_equal_the_whole(name):
    a, b, h = inputs("real", 40)
    options = options_of(name, 2, 40)
    if "segment_ids" in options:  # The cuts are inside segments, at real positions.
        options["segment_ids"][:, :30] = 0
        options["segment_ids"][:, 30:] += 1
    expected, after = naive.linear_recurrence(a, b, initial_state=h, return_state=True, **options)
    outputs, state = [], h
    for start, end in ((0, 17), (17, 18), (18, 19), (19, 40)):
        here = {key: x[:, start:end] for key, x in options.items()}
        y, state = linear_recurrence(
            a[:, start:end], b[:, start:end], initial_state=state, return_state=True, **here
        )
        outputs.append(backend.to_numpy(y))
    assert error(np.concatenate(outputs, 1), expected) < 2e-6
    assert error(state, after) < 2e-6


@pytest.mark.parametrize("dtype, tolerance", (("float16", 2e-3), ("bfloat16", 2e-2)))
def test_half_precision(dtype, tolerance):
    a, b, _ = inputs("real", 63)
    got, state = linear_recurrence(ops.cast(a, dtype), ops.cast(b, dtype), return_state=True)
    assert dtype in str(got.dtype) and "float32" in str(state.dtype)
    assert error(ops.cast(got, "float32"), naive.linear_recurrence(a, b)) < tolerance


def scan_inputs(time, batch=2, seed=0):
    g = rng(seed, time, 1)
    delta = np.exp(g.normal(size=(batch, time, WIDTH)) - 2).astype("float32")
    a = -np.exp(g.normal(size=(WIDTH, 2))).astype("float32")
    x, b, c = (normal(g, batch, time, n) for n in (WIDTH, 2, 2))
    return [x, delta, a, b, c, normal(g, WIDTH), normal(g, batch, WIDTH, 2)]


def scan(function, tensors, **options):
    """Output and state in one vector."""
    *tensors, h = tensors
    y, state = function(*tensors, initial_state=h, return_state=True, **options)
    library = np if function is naive.selective_scan else ops
    return library.concatenate([library.reshape(y, (-1,)), library.reshape(state, (-1,))])


@pytest.mark.parametrize(
    "time, name", [(time, "interior segments") for time in LENGTHS] + [(63, n) for n in OPTIONS]
)
def test_selective_scan(time, name):
    """Outputs and the state; each gradient by its products with random directions."""
    tensors, options = scan_inputs(time), options_of(name, 2, time)
    expected = scan(naive.selective_scan, tensors, **options)

    def run(*x):
        return scan(selective_scan, x, **options)

    if not backend.capabilities().trains:
        assert error(run(*tensors), expected) < 2e-6
        return
    slope = normal(rng(3), *expected.shape)
    found = gradients(run, "xtabcdh", tensors, slope)
    assert error(found.pop("output"), expected) < 2e-6
    wide = [x.astype("float64") for x in tensors]
    for at, each in enumerate("xtabcdh"):
        direction = rng(5, at).normal(size=wide[at].shape)
        sums = []
        for step in (1e-5, -1e-5):
            moved = [*wide[:at], wide[at] + step * direction, *wide[at + 1 :]]
            sums.append(np.sum(slope * scan(naive.selective_scan, moved, **options)))
        numeric = (sums[0] - sums[1]) / 2e-5
        got = backend.to_numpy(found[each]).astype("float64")
        scale = np.sqrt(np.sum(got**2)) * 1.0
        assert abs(np.sum(got * direction) - numeric) < 1e-5 * max(scale, 1e-3), each


def test_selective_scan_at_2000_and_in_steps():
    tensors = scan_inputs(2000)
    got = fast(lambda *x: scan(selective_scan, x))(*tensors)
    assert error(got, scan(naive.selective_scan, tensors)) < 3e-6
    x, delta, a, b, c, d, state = scan_inputs(20)
    expected = naive.selective_scan(x, delta, a, b, c, d, initial_state=state)
    for start, end in ((0, 9), (9, 10), (10, 11), (11, 20)):
        chunk = [z[:, start:end] for z in (x, delta)]
        late = [z[:, start:end] for z in (b, c)]
        y, state = selective_scan(*chunk, a, *late, d, initial_state=state, return_state=True)
        assert error(y, expected[:, start:end]) < 3e-6


def test_selective_scan_of_padding_and_of_great_steps():
    x, delta, a, b, c, d, h = scan_inputs(40)
    mask = mask_of(rng(2), 2, 40, "interior")
    delta = delta * 1000
    bad = [np.where(mask[:, :, None], z, np.nan) for z in (x, delta, b, c)]
    expected = naive.selective_scan(x, delta, a, b, c, d, mask=mask)
    got = selective_scan(bad[0], bad[1], a, bad[2], bad[3], d, mask=mask)
    assert error(got, expected) < 3e-6


@pytest.mark.parametrize("dtype, tolerance", (("float16", 1e-2), ("bfloat16", 3e-2)))
def test_selective_scan_in_half_precision(dtype, tolerance):
    tensors = scan_inputs(63)[:6]
    got = selective_scan(*(ops.cast(x, dtype) for x in tensors))
    assert dtype in str(got.dtype)
    assert error(ops.cast(got, "float32"), naive.selective_scan(*tensors)) < tolerance


@trains
@pytest.mark.parametrize("setting", ("portable", "auto"))
def test_compiled_once_a_shape(setting, monkeypatch):
    monkeypatch.setenv("EMBER_KERNELS", setting)
    a, b, h = inputs("real", 63)
    tensors = scan_inputs(63)

    def both(*x):
        return call(linear_recurrence, "real", x[:3]), scan(selective_scan, x[3:])

    function, count = compiled(both)
    everything = [ops.convert_to_tensor(x) for x in (a, b, h, *tensors)]
    for _ in range(3):
        one, two = function(*everything)
    assert len(count) == 1
    assert error(one, call(naive.linear_recurrence, "real", (a, b, h))) < 2e-6
    assert error(two, scan(naive.selective_scan, tensors)) < 2e-6


@pytest.mark.parametrize(
    "a, b, words",
    (
        (np.ones((3,), "float32"), np.ones((2, 5), "float32"), "expected (B, T, D)"),
        (np.ones((4,), "float32"), np.ones((2, 5, 3), "float32"), "broadcasts to b"),
        (np.ones((3,), "float32"), np.ones((2, 0, 3), "float32"), "at least one"),
        ((np.ones((3,), "float32"),) * 3, np.ones((2, 5, 3), "float32"), "as 3 tensors"),
    ),
)
def test_bad_input_is_refused(a, b, words):
    with pytest.raises(ValueError) as raised:
        linear_recurrence(a, b)
    assert words in str(raised.value)
    with pytest.raises(ValueError, match="state width K of c"):
        ones = np.ones((1, 4, 2), "float32")
        selective_scan(ones, ones, np.ones((2, 3), "float32"), np.ones((1, 4, 3), "float32"), ones)


@pytest.mark.parametrize("engine", ("linear_recurrence", "selective_scan"))
def test_torch_refuses_a_second_derivative_that_its_kernel_does_not_have(engine):
    if backend.name() != "torch":
        pytest.skip("these kernels are torch's")
    import torch

    x, b = (torch.tensor(normal(rng(at), 1, 9, 2), requires_grad=True) for at in (1, 2))
    a = torch.tensor([[-0.5, -0.2], [-0.1, -0.3]])
    if engine == "linear_recurrence":
        y = linear_recurrence(b * 0.1, x)
    else:
        y = selective_scan(x, x.abs(), a, b, b)
    with pytest.raises(RuntimeError, match="first derivatives alone"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)
