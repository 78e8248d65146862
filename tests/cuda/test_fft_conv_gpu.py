"""The graphics card's kernels on their twin, and what the CUDA compiler makes of them."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sanitizers
import twin
from fft_conv_cases import (
    TOLERANCES,
    Case,
    assert_close,
    check,
    random_case,
    read,
    stored,
)

from ember_keras.cuda import build

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("cuda")]

FUZZ = int(os.environ.get("FFT_CONV_FUZZ", "150"))
SHARED = {"turing": 64, "ada": 99, "ampere": 163, "hopper": 227}  # KiB that a block may use


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    return twin.compile_twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture
def card(path):
    return lambda **properties: twin.Twin(path, **properties)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("filter_dtype", [None, "float32"])
def test_each_dtype(card, dtype, filter_dtype):
    for width, filters in [(1, 1), (3, 3), (17, 17), (32, 8), (40, 1)]:
        case = Case(
            width=width, filters=filters, size=67, taps=67, length=67, dtype=dtype,
            filter_dtype=filter_dtype, gate_in=True, gate_out=True,
        )  # fmt: skip
        assert_close(card(), case)


@pytest.mark.parametrize("size", [1, 2, 63, 100, 257, 509])
@pytest.mark.parametrize("taps", [1, 2, 31, 100, 600])
def test_lengths(card, size, taps):
    for start, length in [(0, size), (taps // 2, size), (size, 40), (0, size + taps + 5)]:
        case = Case(width=3, filters=3, size=size, taps=taps, start=start, length=length, skip=1)
        assert_close(card(), case)


@pytest.mark.parametrize("period", [60, 61, 200])
def test_circular(card, period):
    for size, taps, length, start in [(60, 60, 60, 0), (41, 13, 60, 30), (7, 60, 20, 500)]:
        for skip in (3, -500):
            case = Case(size=size, taps=taps, length=length, start=start, skip=skip, period=period)
            assert_close(card(), case)


@pytest.mark.parametrize("layout", ["strided", "reversed", "channels_first"])
@pytest.mark.parametrize("width", [5, 32])
def test_layouts(card, layout, width):
    case = Case(width=width, filters=width, layout=layout, gate_in=True, gate_out=True)
    assert_close(card(), case)


@pytest.mark.parametrize(
    "points", [32, 48, 64, 96, 128, 192, 256, 512, 768, 1024, 1536, 2048, 3072]
)
def test_every_first_radix_in_one_tile_and_in_two(card, points):
    case = Case(batch=1, width=2, filters=2, size=points, taps=points, length=points)
    assert_close(card(shared_bytes=227 * 1024), case)
    if points >= 1024:
        assert_close(card(shared_bytes=4 * 1024), case)


@pytest.mark.parametrize("kib", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("size", [5000, 40000])
def test_long_sequences(card, kib, size):
    """Against numpy's FFT: tap by tap would take minutes."""
    rng = np.random.default_rng(size)
    u, g = rng.standard_normal((2, 1, size, 2))
    k, d = rng.standard_normal((size, 2)), rng.standard_normal(2)

    def convolved(a, b):
        found = np.fft.irfft(np.fft.rfft(a, 2 * size, 1) * np.fft.rfft(b, 2 * size, 1), axis=1)
        return found[:, :size]

    low = {name: x.astype(np.float32) for name, x in {"u": u, "k": k, "d": d, "g": g}.items()}
    kernel = card(shared_bytes=kib * 1024, cache_bytes=1 << 24)
    y = kernel.forward(low["u"], low["k"], low["d"])
    out = {name: np.empty_like(low[name[1:]]) for name in ("du", "dk", "dd")}
    kernel.backward(low["u"], low["k"], low["g"], low["d"], out=out)
    expected = {
        "du": convolved(g[:, ::-1], k[None])[:, ::-1] + d * g,
        "dk": convolved(g[:, ::-1], u)[0, ::-1],
        "dd": (g * u).sum((0, 1)),
    }
    for found, right in [(y, convolved(u, k[None]) + d * u), *((out[n], expected[n]) for n in out)]:
        assert np.abs(found - right).max() <= 2e-6 * np.abs(right).max()


@pytest.mark.parametrize("kib", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("exponent", [5, 8, 11, 12, 13, 14, 16, 20, 22])
def test_each_card_s_variant(card, kib, exponent):
    """As large a tile as the card's memory holds, and never a larger one."""
    size = 1 << exponent
    u = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, size, 8), (0, 0, 0))
    plan = card(shared_bytes=kib * 1024).plan(u, u[0])
    assert plan.points == size and plan.shared_bytes <= kib * 1024
    one = plan.columns == size
    assert one == (size * 17 / 16 * 2 * 8 <= kib * 1024)
    assert plan.channels >= 2 and plan.columns <= size // 32 * (32 if one else 1)


TENSOR = {"float16": 1.5e-5, "bfloat16": 1.5e-5}
"""What tensor cores add to an error, of the scale; two bfloat16 a number have 16 bits."""


def transformed(rng, dtype, size, width, card):
    """Errors of y and the gradients against float64 FFTs, in units of the scales."""
    u, g = rng.standard_normal((2, 1, size, width))
    k = rng.standard_normal((size, width))
    inputs = {name: stored(x, dtype) for name, x in {"u": u, "g": g}.items()}
    inputs["k"] = k.astype(np.float32)
    u, g = (read(inputs[name], dtype) for name in "ug")
    k = read(inputs["k"], "float32")

    def convolved(a, b):
        found = np.fft.irfft(np.fft.rfft(a, 2 * size, 1) * np.fft.rfft(b, 2 * size, 1), axis=1)
        return found[:, :size]

    options = {"dtype": dtype, "filters": "float32"}
    assert card.plan(inputs["u"], inputs["k"], **options).tensor == card.card.tensor
    y = card.forward(inputs["u"], inputs["k"], **options)
    out = {name: np.empty_like(inputs[name[1:]]) for name in ("du", "dk")}
    card.backward(inputs["u"], inputs["k"], inputs["g"], out=out, **options)
    expected = {
        "y": convolved(u, k[None]),
        "du": convolved(g[:, ::-1], k[None])[:, ::-1],
        "dk": convolved(g[:, ::-1], u)[0, ::-1],
    }
    found = {"y": read(y, dtype), "du": read(out["du"], dtype), "dk": out["dk"]}
    return {
        name: np.abs(found[name] - right).max() / np.abs(right).max()
        for name, right in expected.items()
    }


@pytest.mark.parametrize("dtype", TENSOR)
@pytest.mark.parametrize("points", [512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 12288])
def test_tensor_cores_in_every_tile(card, dtype, points):
    """They add less than storage takes; gradients of float32 filters show how much."""
    errors = [
        transformed(
            np.random.default_rng(points), dtype, points - 7, 2 if points > 4096 else 8,
            card(shared_bytes=227 * 1024, cache_bytes=1 << 24, tensor=tensor),
        )
        for tensor in (0, 1)
    ]  # fmt: skip
    assert errors[0]["dk"] < 1e-6 < errors[1]["dk"] < TENSOR[dtype]
    for name in ("y", "du"):
        assert errors[1][name] <= errors[0][name] + TENSOR[dtype]


def test_what_goes_through_tensor_cores(card):
    """16-bit signals, transforms of more than 256 points, one tile, and a card that says so."""

    def tensor(size=1000, dtype="float16", kib=163, tensor=1):
        u = np.lib.stride_tricks.as_strided(np.zeros(1, np.float16), (1, size, 8), (0, 0, 0))
        plan = card(shared_bytes=kib * 1024, tensor=tensor).plan(
            u, u[0], dtype=dtype, filters=dtype
        )
        assert plan.shared_bytes <= kib * 1024
        return plan.tensor

    assert tensor() and tensor(dtype="bfloat16") and tensor(400) and tensor(8192)
    assert not any(
        [tensor(tensor=0), tensor(dtype="float32"), tensor(256), tensor(20000), tensor(kib=4)]
    )


@pytest.mark.parametrize(
    "dtype, signals, filters",
    [
        *(("bfloat16", 1e30, 1e-3), ("bfloat16", 1e-30, 1.0), ("bfloat16", 1e-3, 1e30)),
        *(("float16", 65504, 1e-4), ("float16", 1e-4, 1.0), ("float16", 1e-7, 1e3)),
    ],
)
def test_tensor_cores_have_float32_s_range(card, dtype, signals, filters):
    size = 700
    rng = np.random.default_rng(0)
    u = stored(rng.uniform(-signals, signals, (1, size, 4)), dtype)
    k = stored(rng.uniform(-filters, filters, (size, 4)), dtype)
    u64, k64 = read(u, dtype), read(k, dtype)
    found = np.fft.rfft(u64, 2 * size, 1) * np.fft.rfft(k64, 2 * size, 0)
    right = np.fft.irfft(found, axis=1)[:, :size]
    kernel = card(tensor=1)
    options = {"dtype": dtype, "filters": dtype}
    assert kernel.plan(u, k, **options).tensor
    y = read(kernel.forward(u, k, **options), dtype)
    assert np.abs(y - right).max() <= TOLERANCES[dtype] / 2 * np.abs(right).max()


def larger_case(rng):
    """Options as in `random_case`, 16 bits, and transforms of some hundreds of points."""
    case = random_case(rng)
    size, taps, length = (int(n) for n in rng.integers(200, 900, 3))
    period = int(rng.integers(900, 1500)) if rng.random() < 0.25 else 0
    filters, ratio = (int(n) for n in rng.integers(1, 4, 2))
    return dataclasses.replace(
        case, batch=int(rng.integers(1, 4)), filters=filters, width=filters * ratio,
        size=size, taps=taps, length=length, period=period, layout=str(rng.choice(LAYOUTS)),
        dtype=str(rng.choice(list(TENSOR))), start=int(rng.choice([0, 0, 7, taps // 2])),
        filter_dtype="float32" if rng.random() < 0.5 else None,
    )  # fmt: skip


LAYOUTS = ["natural", "strided", "reversed", "channels_first"]


def test_random_calls_on_tensor_cores(card):
    used = 0
    for seed in range(FUZZ // 2):
        rng = np.random.default_rng(seed)
        case = larger_case(rng)
        kernel = card(
            shared_bytes=int(rng.choice([48, 163, 227])) * 1024,
            cache_bytes=int(rng.choice([0, 1 << 16, 1 << 20])),
            tensor=1,
        )
        kernel.backwards = bool(seed % 2)
        assert_close(kernel, case, seed)
        inputs, options = case.inputs(rng), case.options()
        del options["threads"]
        used += kernel.plan(inputs["u"], inputs["k"], **options).tensor
    assert used >= FUZZ // 3


def test_random_calls(card):
    """On cards of any size, whichever of blocks and threads runs first."""
    for seed in range(2 * FUZZ):
        rng = np.random.default_rng(seed)
        case = random_case(rng)
        if case.dtype == "float64" or case.layout == "misaligned":
            continue
        kernel = card(
            shared_bytes=int(rng.choice([4, 16, 48, 227])) * 1024,
            processors=int(rng.integers(1, 40)),
            cache_bytes=int(rng.choice([0, 1 << 16, 1 << 20])),
            tensor=int(rng.integers(2)),
        )
        kernel.backwards = bool(seed % 2)
        assert_close(kernel, case, seed)


def test_the_order_of_blocks_and_threads_changes_no_bit(card):
    rng = np.random.default_rng(0)
    for case in [
        Case(
            batch=7, width=40, filters=8, size=90, taps=90, length=90, gate_in=True, gate_out=True
        ),
        Case(batch=3, width=3, filters=3, size=1500, taps=1500, length=1500),
        Case(batch=2, width=3, filters=3, size=1500, taps=40, length=1500),
        Case(batch=3, width=6, filters=2, size=500, taps=300, length=500, dtype="float16"),
    ]:
        inputs = case.inputs(rng)
        g = case.array(rng, (case.batch, case.length, case.width))
        found = []
        for backwards in (False, True):
            kernel = card(shared_bytes=(64 if case.dtype == "float16" else 8) * 1024, tensor=1)
            kernel.backwards = backwards
            signals = dict(inputs)
            u, k = signals.pop("u"), signals.pop("k")
            y = kernel.forward(u, k, **signals, **case.options())
            out = kernel.backward(u, k, g, **signals, out=case.outputs(inputs), **case.options())
            found.append([y, *(x for x in out.values() if x is not None)])
        assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("dtype, size", [("float32", 40), ("float16", 600)])
def test_a_wrong_number_stays_in_its_row_and_channel(card, dtype, size):
    u = np.ones((2, size, 5), dtype)
    u[1, 7, 3] = np.nan
    y = card(tensor=1).forward(u, np.ones((size, 5), dtype), np.ones(5, dtype))
    wrong = np.isnan(y)
    assert wrong[1, 7:, 3].all() and wrong.sum(1)[1, 3] == wrong.sum()


def test_bad_calls_are_refused(card):
    case = Case()
    u, k = np.zeros((1, 30, 4), np.float32), np.zeros((30, 4), np.float32)
    with pytest.raises(ValueError, match="dtype"):
        card().forward(u.astype(np.float64), k.astype(np.float64))
    with pytest.raises(ValueError, match="aligned"):
        check(card(), dataclasses.replace(case, layout="misaligned"))
    with pytest.raises(ValueError, match="does not divide"):
        card().forward(u, k[:, :3])
    with pytest.raises(ValueError, match="too large"):
        card().forward(u, k, start=1 << 41)
    with pytest.raises(ValueError, match="no taps"):
        card().forward(u, k[:0])


FAULTS = {
    "x.set(0, {1, 0})": "threads 1 and 0 write word 0",
    "x.set(i, {1, 0}); x.get((i + 1) % 32)": "thread 0 reads word 1, which nobody wrote",
    "x.set(i, {1, 0}); x.get((i + 31) % 32)": "which nobody wrote|beside thread",
    "x.set(i, {1, 0}); x.barrier(); x.get(0); x.set(0, {1, 0})": "beside",
    "x.set(i + 1, {1, 0})": "thread 31 uses word 32 of 32",
    "if (i) x.barrier()": "1 of 32 threads of block 0 left before a barrier",
    "x.set(i, {1, 0}); x.barrier(); x.get(31 - i)": None,
    "if (i < 9) x.multiply({}, {}, sums)": "9 of 32 threads of warp 0 are at a product",
    "if (i < 9) x.multiply({}, {}, sums); else x.barrier()": "9 of 32 threads of warp 0",
    "x.set(i, {1, 0}); x.multiply({}, {}, sums); x.get(31 - i)": "beside thread",
}


@pytest.mark.parametrize("body", FAULTS)
def test_the_twin_finds_a_fault(body, tmp_path):
    source = tmp_path / "faults.cpp"
    grid = Path(build.__file__).parent / "gpu" / "grid.h"
    source.write_text(f"""
        #include "{grid}"
        using namespace ember::gpu;
        struct Body {{
          void operator()(const Thread& x) const {{ const int i = x.index(); Sums sums = {{}};
                                                  {body}; (void)i; (void)sums; }}
        }};
        int main() {{
          const bool fine = launch(Body(), 2, 32, 32 * sizeof(Complex), nullptr);
          puts(fault);
          return fine ? 0 : 1;
        }}
    """)
    program = tmp_path / "faults"
    compiler = build.find_compiler()
    subprocess.run([*compiler, "-std=c++17", "-O1", source, "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True)
    expected = FAULTS[body]
    assert run.returncode == (expected is not None)
    assert re.search(expected, run.stdout) if expected else not run.stdout.strip()


PRODUCT = """
#include "GRID"
using namespace ember::gpu;
float left[16][16], right[16][8], sums[16][8];
uint16_t brain(float x) { Brain y; store(&y, x); return y.bits; }
struct Body {
  // The PTX ISA's words for which numbers a thread has.
  void operator()(const Thread& x) const {
    const int group = x.index() >> 2, thread = x.index() % 4;
    uint16_t a[8], b[4];
    float c[4];
    for (int i = 0; i < 8; ++i) {
      const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
      const int column = thread * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      a[i] = brain(left[row][column]);
    }
    for (int i = 0; i < 4; ++i) b[i] = brain(right[thread * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group]);
    for (int i = 0; i < 4; ++i) c[i] = sums[i < 2 ? group : group + 8][thread * 2 + (i & 1)];
    Left of_a; Right of_b; Sums of_c;
    memcpy(&of_a, a, sizeof a); memcpy(&of_b, b, sizeof b); memcpy(&of_c, c, sizeof c);
    x.multiply(of_a, of_b, of_c);
    for (int i = 0; i < 4; ++i) sums[i < 2 ? group : group + 8][thread * 2 + (i & 1)] = of_c.x[i];
  }
};
int main() {
  int seed = 1, wrong = 0;
  const auto next = [&] { return float((seed = seed * 1103515245u % 2147483647u) % 17 - 8); };
  for (auto& row : left) for (float& x : row) x = next();
  for (auto& row : right) for (float& x : row) x = next();
  for (auto& row : sums) for (float& x : row) x = next();
  float expected[16][8];
  for (int i = 0; i < 16; ++i) for (int j = 0; j < 8; ++j) {
    expected[i][j] = sums[i][j];
    for (int k = 0; k < 16; ++k) expected[i][j] += left[i][k] * right[k][j];
  }
  if (!launch(Body(), 1, 32, 0, nullptr)) return 2;
  for (int i = 0; i < 16; ++i) for (int j = 0; j < 8; ++j) wrong += sums[i][j] != expected[i][j];
  return wrong > 0;
}
"""


def test_the_twin_s_products_have_the_layout_of_mma_m16n8k16(tmp_path):
    source, program = tmp_path / "product.cpp", tmp_path / "product"
    source.write_text(PRODUCT.replace("GRID", str(Path(build.__file__).parent / "gpu" / "grid.h")))
    command = [*build.find_compiler(), "-std=c++17", "-O1", source, "-o", program]
    subprocess.run(command, check=True)
    assert subprocess.run([program]).returncode == 0


SANITIZED = """
import sys, numpy as np
from fft_conv_cases import Case, assert_close, random_case
from twin import Twin
for dtype in ("float16", "bfloat16"):
    case = Case(
        width=6, filters=2, size=300, taps=290, length=310, dtype=dtype, gate_in=True, gate_out=True
    )
    assert_close(Twin(sys.argv[1], 1 << 16, tensor=1), case)
for seed in range(int(sys.argv[2])):
    rng = np.random.default_rng(seed)
    case = random_case(rng, 60)
    if case.dtype != "float64" and case.layout != "misaligned":
        card = Twin(sys.argv[1], int(rng.choice([4, 48])) * 1024, 3, int(rng.choice([0, 1 << 18])))
        assert_close(card, case, seed)
"""


def test_random_calls_under_sanitizers(tmp_path):
    """Reads and writes of what is not theirs, and undefined arithmetic, end the process."""
    library = twin.compile_twin(tmp_path, ("-O0", *sanitizers.FLAGS))
    sanitizers.run(SANITIZED, library, FUZZ)


def test_the_cuda_compiler_s_report(tmp_path):
    """For every card: no warning, no spills, no stack, and threads that fit their registers."""
    try:
        build.find_cuda()
    except build.BuildError as error:
        pytest.skip(str(error))
    _, report = build.build_gpu(tmp_path, flags=("-Xptxas=-v", "-Xcompiler=-Wall,-Wextra"))
    assert "warning" not in report
    kernels = re.findall(
        r"Compiling entry function '(\S+)' for '(sm_\d+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers",
        report,
        re.DOTALL,
    )
    assert {card for _, card, *_ in kernels} == {f"sm_{card}" for card in build.CARDS}
    for name, card, stack, stores, loads, registers in kernels:
        assert (int(stack), int(stores), int(loads)) == (0, 0, 0), (name, card)
        assert int(registers) <= 128, (name, card)
    products = {card for name, card, *_, used in kernels if "Lb1E" in name and int(used) > 32}
    assert products == {f"sm_{card}" for card in build.TENSOR_CARDS}
