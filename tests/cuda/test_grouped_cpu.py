"""The grouped products' kernel for processors, against a plain float64 reference."""

import numpy as np
import pytest
import sanitizers

from ember_keras.cuda import build, grouped, library
from ember_keras.ops.engines.grouped_matmul import naive

pytestmark = pytest.mark.once

ISAS = {"portable": library.PORTABLE, "avx2": library.AVX2, "avx512": library.AVX512}
SHAPES = [
    (1, 1, 1, 1),
    (37, 5, 7, 5),
    (50, 3, 1, 33),
    (300, 2, 530, 70),
    (700, 3, 33, 530),
    (13, 20, 16, 32),
]
"""M, E, D, F: below, at and above the sizes of blocks and panels."""


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    return grouped.Kernel(build.build(tmp_path_factory.mktemp("grouped")))


def _case(rng, rows, groups, inner, width):
    x, g = (rng.normal(size=(rows, n)).astype("float32") for n in (inner, width))
    w = rng.normal(size=(groups, inner, width)).astype("float32")
    offsets = np.sort(rng.integers(0, rows + 1, size=groups + 1)).astype("int32")
    return x, w, g, offsets


def _check(kernel, x, w, g, offsets, **options):
    y, dx, dw = (np.full(each.shape, np.nan, "float32") for each in (g, x, w))
    kernel.rows(x, w, offsets, y, **options)
    kernel.rows(g, w, offsets, dx, transposed=True, **options)
    kernel.weights(x, g, offsets, dw, **options)
    _close(y, naive.grouped_matmul(x, w, offsets))
    _close(dx, naive.grouped_matmul(g, np.swapaxes(w, 1, 2), offsets))
    wide = x.astype("float64"), g.astype("float64")
    bounds = list(zip(offsets, offsets[1:], strict=False))
    _close(dw, np.stack([wide[0][a:b].T @ wide[1][a:b] for a, b in bounds]))
    return y, dx, dw


def _close(found, expected):
    scale = max(1e-6, np.abs(expected).max(initial=0.0))
    assert np.abs(found - expected).max(initial=0.0) <= 3e-6 * scale


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_instruction_set(kernel, name, shape, rng):
    try:
        _check(kernel, *_case(rng, *shape), threads=1, isa=ISAS[name])
    except ValueError as error:
        assert "lacks the instruction set" in str(error)
        pytest.skip(f"this machine lacks {name}")


def test_any_number_of_threads_gives_the_same_numbers(kernel, rng):
    case = _case(rng, 1100, 3, 64, 48)
    one = _check(kernel, *case, threads=1)
    for threads in (2, 3, 40):
        for a, b in zip(one, _check(kernel, *case, threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)


def test_random_calls(kernel, rng):
    for _ in range(40):
        shape = rng.integers(1, [200, 9, 90, 90])
        _check(kernel, *_case(rng, *map(int, shape)), threads=int(rng.integers(1, 4)))


def test_groups_without_rows_and_rows_without_a_group(kernel, rng):
    x, w, g, _ = _case(rng, 9, 3, 4, 5)
    for offsets in ([0, 0, 0, 0], [9, 9, 9, 9], [2, 2, 7, 7], [0, 9, 9, 9]):
        _check(kernel, x, w, g, np.array(offsets, "int32"), threads=2)


@pytest.mark.parametrize("offsets", [[0, 5, 4, 9], [-1, 2, 3, 9], [0, 2, 3, 10], [2**31 - 1] * 4])
def test_offsets_that_lie_elsewhere_are_refused(kernel, offsets, rng):
    x, w, g, _ = _case(rng, 9, 3, 4, 5)
    for call in (
        lambda: kernel.rows(x, w, np.array(offsets, "int32"), np.empty_like(g)),
        lambda: kernel.weights(x, g, np.array(offsets, "int32"), np.empty_like(w)),
    ):
        with pytest.raises(ValueError, match="offsets decrease"):
            call()


def test_what_is_no_call_is_refused(kernel, rng):
    x, w, g, offsets = _case(rng, 9, 3, 4, 5)
    with pytest.raises(ValueError, match="threads is below 1"):
        kernel.rows(x, w, offsets, np.empty_like(g), threads=0)
    with pytest.raises(ValueError, match="instruction set is unknown"):
        kernel.rows(x, w, offsets, np.empty_like(g), isa=9)
    with pytest.raises(ValueError, match="do not go together"):
        kernel.rows(x, w, offsets[:-1], np.empty_like(g))
    with pytest.raises(ValueError, match="do not go together"):
        kernel.weights(x, g[:5], offsets, np.empty_like(w))


def test_sizes_that_overflow_are_refused(kernel):
    sizes = grouped.Sizes(grouped.VERSION, 0, 0, 1, 2**20, 4, 2**60, 2**10)
    offsets = np.zeros(5, "int32")
    status = kernel._rows(sizes, None, None, grouped.address(offsets), None)
    assert "too large" in kernel._error(status).decode()


@pytest.mark.matrix
def test_random_calls_under_the_sanitizers(tmp_path):
    path = build.build(tmp_path, flags=sanitizers.FLAGS)
    sanitizers.run(
        "import sys, numpy as np, test_grouped_cpu as tests\n"
        "kernel = tests.grouped.Kernel(sys.argv[1])\n"
        "tests.test_random_calls(kernel, np.random.default_rng(1))\n",
        path,
    )
