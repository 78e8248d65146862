"""The long convolution's Metal text, compiled for the processor, through the kernel table."""

import dataclasses

import numpy as np
import pytest
from engines.support import error, normal, rng
from fft_conv_cases import Case, Reference

import ember_keras as ek
from ember_keras import backend
from ember_keras.cuda import build, metal
from ember_keras.ops import kernels
from ember_keras.ops.engines.fft_conv import naive
from ember_keras.ops.kernels import table

pytestmark = pytest.mark.skipif(backend.name() != "mlx", reason="reached by mlx alone")

SIZES = [
    (1, 1, 1, 1, 1),
    (2, 40, 6, 40, 3),
    (3, 61, 5, 61, 5),
    (2, 37, 5, 53, 1),
    (2, 257, 3, 20, 3),
    (2, 90, 40, 90, 8),
    (1, 700, 2, 700, 2),
    (1, 1500, 3, 1100, 3),
    (1, 4096, 1, 4096, 1),
]
"""B, T, D, taps, F."""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    from metal_twin import MetalTwin

    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    return MetalTwin(tmp_path_factory.mktemp("metal"))


@pytest.fixture
def twin(made, monkeypatch):
    """In place of mlx's own, on what looks like an Apple GPU."""
    import mlx.core as mx

    monkeypatch.setenv("EMBER_KERNELS", "metal_fft_conv")
    monkeypatch.setattr(mx.fast, "metal_kernel", made.metal_kernel)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(table.backend, "device_kind", lambda x=None: "gpu")
    monkeypatch.setattr(made, "backwards", False)
    return made


def arguments(sizes):
    b, t, width, taps, filters = sizes
    g = rng(*sizes)
    return (
        normal(g, b, t, width),
        normal(g, taps, filters),
        normal(g, width),
        normal(g, b, t, width),
    )


def slopes(function, *tensors):
    import mlx.core as mx

    return mx.grad(function, tuple(range(len(tensors))))(*map(mx.array, tensors))


@pytest.mark.parametrize(
    ("sizes", "causal"),
    [(sizes, causal) for sizes in SIZES for causal in (True, False) if causal or sizes[1] < 1000],
    ids=str,
)
def test_values_and_gradients(sizes, causal, twin):
    import mlx.core as mx

    u, k, d, g = arguments(sizes)
    y = ek.ops.fft_conv(mx.array(u), mx.array(k), mx.array(d), causal=causal)
    assert error(y, naive.fft_conv(u, k, d, causal=causal)) < 2e-6
    found = slopes(lambda *x: mx.sum(ek.ops.fft_conv(*x, causal=causal) * mx.array(g)), u, k, d)
    expected = naive.gradients(u, k, d, g, causal=causal)
    for got, name in zip(found, "ukd", strict=True):
        # mlx sums the gradient of d itself, in float32.
        assert error(got, expected[name]) < (5e-6 if name == "d" else 2e-6), name
    assert twin.programs


@pytest.mark.parametrize("seed", range(30))
def test_any_window(seed, twin):
    import mlx.core as mx

    from ember_keras.ops.kernels import mlx_metal

    g = rng(seed)
    width = int(g.integers(5, 9))  # which share their programs
    case = Case(
        batch=int(g.integers(1, 4)), width=width, filters=width, size=int(g.integers(1, 40)),
        taps=int(g.integers(1, 40)), length=int(g.integers(1, 30)),
    )  # fmt: skip
    start = int(g.integers(0, case.size + case.taps))
    skip = int(g.integers(0, case.size))
    case = dataclasses.replace(
        case, start=start, skip=skip, length=min(case.length, case.size - skip)
    )
    inputs = case.inputs(g)
    slope = case.array(g, (case.batch, case.length, width))

    def run(*tensors):
        return mlx_metal.run(
            *tensors, start=case.start, length=case.length, skip=case.skip, fft_length=None
        )

    tensors = [inputs[name] for name in ("u", "k", "d")]
    twin.backwards = bool(seed % 2)
    y = run(*map(mx.array, tensors))
    found = slopes(lambda *x: mx.sum(run(*x) * mx.array(slope)), *tensors)
    reference = Reference(case, inputs)
    expected, least = reference.backward(slope), reference.products(slope)
    pairs = {"y": (y, reference.forward())}
    pairs |= {name: (x, expected[name]) for name, x in zip(("du", "dk", "dd"), found, strict=True)}
    for name, (got, right) in pairs.items():
        scale = max(np.abs(right).max(), least[name])
        assert np.abs(np.array(got) - right).max() <= 2e-6 * scale, (name, case)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision(dtype, twin):
    import mlx.core as mx

    u, k, d, g = (mx.array(x).astype(getattr(mx, dtype)) for x in arguments((2, 40, 6, 40, 3)))
    wide = [np.array(x.astype(mx.float32)) for x in (u, k, d, g)]
    tolerance = 1e-3 if dtype == "float16" else 8e-3
    y = ek.ops.fft_conv(u, k, d)
    assert y.dtype == u.dtype
    assert error(y.astype(mx.float32), naive.fft_conv(*wide[:3])) < tolerance
    found = mx.grad(lambda *x: mx.sum(ek.ops.fft_conv(*x) * g), (0, 1, 2))(u, k, d)
    expected = naive.gradients(*wide)
    for got, name in zip(found, "ukd", strict=True):
        assert got.dtype == u.dtype
        assert error(got.astype(mx.float32), expected[name]) < tolerance, name


def test_the_order_of_threadgroups_and_threads_changes_no_bit(twin):
    import mlx.core as mx

    u, k, d, g = arguments((2, 90, 40, 90, 8))
    results = []
    for twin.backwards in (False, True):
        loss = slopes(lambda *x: mx.sum(ek.ops.fft_conv(*x) * mx.array(g)), u, k, d)
        results.append([np.array(x) for x in (ek.ops.fft_conv(mx.array(u), mx.array(k)), *loss)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("time", (50, 20))
def test_a_missing_barrier_is_found(time, twin, monkeypatch):
    """The twin's own check: each barrier is needed."""
    import mlx.core as mx

    u, k, _, g = arguments((1, time, 8, time, 8))
    parts = metal.HEADER.split("threadgroup_barrier(mem_flags::mem_threadgroup);")
    assert len(parts) == 5
    needed = [1, 2, 3, 4] if metal.points(time, time, 0, time) == 32 else [2, 3]
    for at in needed:
        start, end = parts[:at], parts[at:]
        word = "threadgroup_barrier(mem_flags::mem_threadgroup);"
        monkeypatch.setattr(metal, "HEADER", word.join(start) + word.join(end))
        with pytest.raises(AssertionError, match="thread"):
            slopes(lambda *x: mx.sum(ek.ops.fft_conv(*x) * mx.array(g)), u, k)


WORDS = """
    #define device __global
    #define constant __constant
    #define threadgroup __local
    #define float2(...) ((float2)(__VA_ARGS__))
    #define OUT(x) float(x)
    typedef unsigned uint;
    typedef unsigned uint3 __attribute__((ext_vector_type(3)));
    typedef float float2 __attribute__((ext_vector_type(2)));
    typedef __SIZE_TYPE__ size_t;
    struct mem_flags { enum Flag { mem_threadgroup }; };
    void threadgroup_barrier(mem_flags::Flag);
"""
"""Metal's words in C++ for OpenCL, which has the same address spaces and vectors."""


@pytest.mark.parametrize("kind", ("spectrum", "convolve", "correlate", "filters"))
def test_pointers_keep_to_their_address_spaces(kind):
    """mlx hands arrays of less than 8 numbers over as constant, others as device memory."""
    cindex = pytest.importorskip("clang.cindex")
    from ember_keras.ops.kernels import mlx_metal

    def complaints(text, small):
        parameters = ["device float* y", *(f"uint3 {name}" for name in metal.POSITIONS)]
        for name in mlx_metal.INPUTS[kind]:
            space = "constant" if name == "sizes" or (small and name != "roots") else "device"
            parameters.append(f"const {space} {'int' if name == 'sizes' else 'float'}* {name}")
        code = f"{WORDS}{header}__kernel void kernel_({', '.join(parameters)}) {{{text}}}"
        options = ["-x", "cl", "-cl-std=clc++2021", "-cl-no-stdinc", "-target", "spir64", "-Wall"]
        unit = cindex.Index.create().parse("a.cl", options, [("a.cl", code)])
        return [each.spelling for each in unit.diagnostics]

    for n in (16, 32, 4096):
        assert metal.roots(n).size >= mlx_metal.SMALL
        for small in (False, True):
            header = metal.HEADER
            text = metal.source(kind, n, *metal.shape(n, 5))
            assert complaints(text, small) == []
    header = header.replace("threadgroup float2* tile", "device float2* tile")
    assert any("no matching function" in each for each in complaints(text, False))


def test_nothing_chooses_it(monkeypatch):
    def row(**call):
        return {row.kernel: row for row in kernels.explain("fft_conv", **call)}["metal_fft_conv"]

    monkeypatch.setenv("EMBER_KERNELS", "auto")
    for device in ("cpu", "gpu"):
        assert not row(device=device).runs and "no Apple GPU has run it" in row().reason
    (kernel,) = (each for each in kernels.kernels("fft_conv") if each.name == "metal_fft_conv")
    assert "no Apple GPU has run it" in kernel.about


def test_it_says_why_it_does_not_run(monkeypatch):
    import mlx.core as mx

    def row(**call):
        return {row.kernel: row for row in kernels.explain("fft_conv", **call)}["metal_fft_conv"]

    monkeypatch.setenv("EMBER_KERNELS", "metal_fft_conv")
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    with pytest.raises(ValueError, match="mlx finds no Metal on this machine"):
        ek.ops.fft_conv(mx.ones((1, 40, 2)), mx.ones((40, 2)))
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    assert "on cpu" in row(device="cpu").reason
    assert "float64" in row(device="gpu", dtype="float64").reason
    long = {"u": (1, 4097, 2), "k": (4097, 2), "length": 4097}
    assert "at most 4096 points, and this one 8192" in row(device="gpu", **long).reason
    assert row(device="gpu").runs


def test_mlx_takes_the_arguments():
    """As far as it does without Metal: it reads them, and then says that there is none."""
    import mlx.core as mx

    if mx.metal.is_available():
        pytest.skip("this machine has Metal")
    text = {"source": metal.source("spectrum", 64, 4, 64), "header": metal.HEADER}
    names = {"name": "spectrum", "input_names": ["x", "roots", "sizes"], "output_names": ["y"]}
    with pytest.raises(RuntimeError, match="No Metal"):
        mx.fast.metal_kernel(**names, **text)
    with pytest.raises(TypeError):
        mx.fast.metal_kernel(**names, **text, grids=1)


def test_a_tile_fits():
    for exponent in range(4, 13):
        for lanes in (1, 3, 64, 1000):
            channels, threads = metal.shape(1 << exponent, lanes)
            assert channels << exponent <= metal.MOST_POINTS
            assert threads <= metal.MOST_THREADS and (channels << exponent) % threads == 0
    assert metal.points(4096, 4096, 0, 4096) == 4096
    assert metal.points(1, 1, 0, 1) == metal.LEAST_POINTS
