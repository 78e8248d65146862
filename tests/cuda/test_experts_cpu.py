"""The kernel for mixtures of gated perceptrons, against a plain float64 reference."""

import ctypes

import numpy as np
import pytest
import sanitizers

from ember_keras.cuda import build, experts, library

pytestmark = pytest.mark.once

ISAS = {"portable": library.PORTABLE, "avx2": library.AVX2, "avx512": library.AVX512}
SHAPES = [
    (1, 1, 1, 1, 1),
    (5, 2, 3, 4, 5),
    (60, 2, 3, 33, 37),
    (40, 3, 7, 17, 65),
    (30, 1, 1, 530, 20),
    (30, 2, 2, 20, 530),
    (900, 1, 1, 8, 16),
    (100, 2, 40, 16, 8),
]
"""N, K, E, D, F: below, at and above the sizes of blocks and panels."""
NAMES = ("y", "dx", "dweights", "dgate_up", "ddown")


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    return experts.Kernel(build.build(tmp_path_factory.mktemp("experts")))


def _case(rng, tokens, slots, count, width, hidden):
    """The inputs, some of whose experts there are not, and a cotangent."""
    floats = [
        rng.normal(size=(tokens, width)),
        rng.random((tokens, slots)),
        rng.normal(size=(count, width, 2 * hidden)) / width**0.5,
        rng.normal(size=(count, hidden, width)) / hidden**0.5,
        rng.normal(size=(tokens, width)),
    ]
    x, *weights, g = (each.astype("float32") for each in floats)
    chosen = rng.integers(-1, count + 1, size=(tokens, slots)).astype("int32")
    return (x, chosen, *weights), g


def _run(kernel, inputs, g, **options):
    x, chosen, *weights = inputs
    y, again = np.full_like(x, np.nan), np.full_like(x, np.nan)
    width = experts.kept_width(chosen.shape[1], weights[2].shape[1])
    kept = np.full((len(x), width), np.nan, "float32")
    kernel.forward(inputs, y, kept, **options)
    kernel.forward(inputs, again, **options)
    np.testing.assert_array_equal(y, again)
    slopes = [np.full_like(each, np.nan) for each in (x, *weights)]
    kernel.backward(inputs, kept, g, slopes, **options)
    return y, *slopes


def _expected(inputs, g):
    x, chosen, weights, gate_up, down = (each.astype("float64") for each in inputs)
    chosen, count = inputs[1], len(down)
    y, dx, dweights, dgate_up, ddown = map(np.zeros_like, (x, x, weights, gate_up, down))
    for n, k in np.ndindex(*chosen.shape):
        e = chosen[n, k]
        if not 0 <= e < count:
            continue
        gate, up = np.split(x[n] @ gate_up[e], 2)
        s = 0.5 * (1 + np.tanh(gate / 2))
        hidden = gate * s * up
        y[n] += weights[n, k] * (hidden @ down[e])
        dweights[n, k] = g[n] @ (hidden @ down[e])
        slope = weights[n, k] * (down[e] @ g[n])
        both = np.concatenate([slope * up * s * (1 + gate * (1 - s)), slope * gate * s])
        ddown[e] += weights[n, k] * np.outer(hidden, g[n])
        dgate_up[e] += np.outer(x[n], both)
        dx[n] += gate_up[e] @ both
    return y, dx, dweights, dgate_up, ddown


def _check(kernel, inputs, g, tolerance=3e-6, **options):
    found = _run(kernel, inputs, g, **options)
    for name, a, b in zip(NAMES, found, _expected(inputs, g.astype("float64")), strict=True):
        # A single product of vectors of length D may be near 0.
        least = g.shape[1] ** 0.5 if name == "dweights" else 1e-6
        scale = max(least, np.abs(b).max(initial=0.0))
        assert np.abs(a - b).max(initial=0.0) <= tolerance * scale, name
    return found


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_instruction_set(kernel, name, shape, rng):
    try:
        _check(kernel, *_case(rng, *shape), threads=1, isa=ISAS[name])
    except ValueError as error:
        assert "lacks the instruction set" in str(error)
        pytest.skip(f"this machine lacks {name}")


@pytest.mark.parametrize("shape", [(500, 2, 20, 16, 24), (500, 2, 2, 16, 24)])
def test_any_number_of_threads_gives_the_same_numbers(kernel, shape, rng):
    case = _case(rng, *shape)
    one = _check(kernel, *case, threads=1)
    for threads in (2, 3, 40):
        for a, b in zip(one, _check(kernel, *case, threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)


def test_random_calls(kernel, rng):
    for _ in range(40):
        shape = rng.integers(1, [80, 4, 9, 70, 70])
        _check(kernel, *_case(rng, *map(int, shape)), threads=int(rng.integers(1, 4)))


def test_large_gates(kernel, rng):
    inputs, g = _case(rng, 20, 2, 3, 8, 16)
    for scale, tolerance in ((30.0, 1e-4), (1e4, 1e-2)):
        large = (*inputs[:3], inputs[3] * np.float32(scale), inputs[4])
        _check(kernel, large, g, tolerance)


def test_no_tokens_and_no_experts(kernel, rng):
    inputs, g = _case(rng, 0, 2, 3, 8, 16)
    assert all(not np.any(each) for each in _run(kernel, inputs, g))
    inputs, g = _case(rng, 9, 2, 3, 8, 16)
    inputs[1][:] = 3
    assert all(not np.any(each) for each in _run(kernel, inputs, g))


def test_what_is_no_call_is_refused(kernel, rng):
    inputs, _ = _case(rng, 9, 2, 3, 8, 16)
    y = np.empty_like(inputs[0])
    with pytest.raises(ValueError, match="threads is below 1"):
        kernel.forward(inputs, y, threads=0)
    with pytest.raises(ValueError, match="instruction set is unknown"):
        kernel.forward(inputs, y, isa=9)
    with pytest.raises(ValueError, match=r"expected \(9, 8\)"):
        kernel.forward(inputs, y[:5])
    with pytest.raises(ValueError, match=r"expected \(3, 8, 32\)"):
        kernel.forward((*inputs[:3], inputs[3][..., :7], inputs[4]), y)


@pytest.mark.parametrize(
    "sizes, reason",
    [
        ((1, 2**20, 2**20, 4, 8, 8), "too large"),
        ((1, 4, 2, 2**20, 2**20, 2**20), "too large"),
        ((1, 4, 0, 4, 8, 8), "below 1"),
        ((1, -4, 2, 4, 8, 8), "negative"),
        ((1, 4, 2, 4, 8, 8), "null"),
    ],
)
def test_sizes_that_cannot_be_are_refused(kernel, sizes, reason):
    sizes = experts.Sizes(experts.VERSION, 0, *sizes)
    status = kernel._forward(sizes, *[ctypes.c_void_p()] * 7)
    assert reason in kernel._error(status).decode()


@pytest.mark.matrix
def test_random_calls_under_the_sanitizers(tmp_path):
    path = build.build(tmp_path, flags=sanitizers.FLAGS)
    sanitizers.run(
        "import sys, numpy as np, test_experts_cpu as tests\n"
        "kernel = tests.experts.Kernel(sys.argv[1])\n"
        "for isa in tests.ISAS.values():\n"
        "    for shape in tests.SHAPES:\n"
        "        case = tests._case(np.random.default_rng(0), *shape)\n"
        "        tests._check(kernel, *case, threads=2, isa=isa)\n"
        "tests.test_random_calls(kernel, np.random.default_rng(1))\n",
        path,
    )
