"""The long convolution's kernel for processors, against a plain float64 reference."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import sanitizers
from fft_conv_cases import TOLERANCES, Case, assert_close, numbered_case

from ember_keras.cuda import build, library

pytestmark = pytest.mark.once

ISAS = {"portable": library.PORTABLE, "avx2": library.AVX2, "avx512": library.AVX512}
POWERS = [1 << n for n in range(8, 21)]
FUZZ = int(os.environ.get("FFT_CONV_FUZZ", "150"))


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    return library.Library(build.build(tmp_path_factory.mktemp("fft_conv")))


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_each_instruction_set(kernel, name, dtype):
    if kernel.isa(ISAS[name]) is None:
        pytest.skip(f"this machine lacks {name}")
    for width, filters in [(1, 1), (3, 3), (17, 17), (32, 8), (40, 1)]:
        case = Case(
            width=width, filters=filters, size=67, taps=67, length=67, dtype=dtype, gate_in=True,
            gate_out=True, isa=ISAS[name],
        )  # fmt: skip
        assert_close(kernel, case)


@pytest.mark.parametrize("size", [1, 2, 63, 100, 257, 509])
@pytest.mark.parametrize("taps", [1, 2, 31, 100, 600])
def test_lengths(kernel, size, taps):
    for start, length in [(0, size), (taps // 2, size), (size, 40), (0, size + taps + 5)]:
        case = Case(width=3, filters=3, size=size, taps=taps, start=start, length=length, skip=1)
        assert_close(kernel, case)


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("size", [217, 330, 401, 1030])
def test_backward_in_parts(kernel, name, size):
    """Lengths whose four arrays would be over the scratch's bound: rows come in parts."""
    if kernel.isa(ISAS[name]) is None:
        pytest.skip(f"this machine lacks {name}")
    for threads, width, filters in [(1, 20, 20), (2, 5, 5), (3, 32, 1)]:
        for gates in (False, True):
            assert_close(
                kernel,
                Case(
                    batch=2, width=width, filters=filters, size=size, taps=size, length=size,
                    gate_in=gates, gate_out=gates, isa=ISAS[name], threads=threads,
                ),
            )  # fmt: skip


@pytest.mark.parametrize("period", [60, 61, 200])
def test_circular(kernel, period):
    for size, taps, length, start in [(60, 60, 60, 0), (41, 13, 60, 30), (7, 60, 20, 500)]:
        case = Case(size=size, taps=taps, length=length, start=start, skip=3, period=period)
        assert_close(kernel, case)


@pytest.mark.parametrize("layout", ["misaligned", "strided", "reversed", "channels_first"])
@pytest.mark.parametrize("width", [5, 32])
def test_layouts(kernel, layout, width):
    case = Case(width=width, filters=width, layout=layout, gate_in=True, gate_out=True)
    assert_close(kernel, case)


@pytest.mark.parametrize(("size", "taps"), [(5000, 20), (9000, 700)])
def test_blocks(kernel, size, taps):
    """A filter much shorter than the signal is applied block by block."""
    case = Case(batch=1, size=size, taps=taps, length=size, start=3, gate_in=True, gate_out=True)
    assert_close(kernel, case)


@pytest.mark.parametrize("seed", range(FUZZ))
def test_random_calls(kernel, seed):
    assert_close(kernel, numbered_case(seed), seed)


SANITIZED = """
import sys
import numpy as np
from ember_keras.cuda import library
from fft_conv_cases import assert_close, numbered_case
kernel = library.Library(sys.argv[1])
for seed in range(int(sys.argv[2])):
    assert_close(kernel, numbered_case(seed), seed)
"""


def test_random_calls_under_sanitizers(tmp_path):
    """Reads and writes of what is not theirs, and undefined arithmetic, end the process."""
    sanitizers.run(SANITIZED, build.build(tmp_path, flags=("-O1", *sanitizers.FLAGS)), FUZZ)


@pytest.mark.parametrize("time", [4096, 6000, 12289, 40000, 1 << 17, 300007])
@pytest.mark.parametrize("threads", [1, 2])
def test_long_signals(kernel, time, threads):
    """In float32 against float64, where the reference is scipy's FFT."""
    from scipy import fft

    rng = np.random.default_rng(time)
    u, g = (rng.standard_normal((2, time, 3), np.float32) for _ in range(2))
    k = rng.standard_normal((time, 3), np.float32)
    y = kernel.forward(u, k, threads=threads)
    out = {"du": np.empty_like(u), "dk": np.empty_like(k)}
    kernel.backward(u, k, g, out=out, threads=threads)
    points = fft.next_fast_len(2 * time, real=True)
    us, gs, ks = (fft.rfft(np.asarray(x, float), points, axis=-2) for x in (u, g, k))
    expected = {
        "y": fft.irfft(us * ks, points, axis=1)[:, :time],
        "du": fft.irfft(gs * ks.conj(), points, axis=1)[:, :time],
        "dk": fft.irfft((gs * us.conj()).sum(0), points, axis=0)[:time],
    }
    for name, found in {"y": y, **out}.items():
        scale = np.abs(expected[name]).max()
        assert np.abs(found - expected[name]).max() <= 2e-6 * scale, name


def test_gradients_one_by_one(kernel):
    """Each gradient alone is that of all together."""
    case = Case(width=6, filters=2, gate_in=True, gate_out=True)
    rng = np.random.default_rng(0)
    inputs = case.inputs(rng)
    u, k = inputs.pop("u"), inputs.pop("k")
    g = case.array(rng, (case.batch, case.length, case.width))
    every = case.outputs({"u": u, "k": k, **inputs})
    kernel.backward(u, k, g, **inputs, out=every, **case.options())
    for name, expected in every.items():
        one = {name: np.full_like(expected, 7)}
        kernel.backward(u, k, g, **inputs, out=one, **case.options())
        np.testing.assert_array_equal(one[name], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("filters", [1, 20])
def test_what_is_not_finite_stays_in_its_row_and_channel(kernel, bad, filters):
    rng = np.random.default_rng(0)
    u, g = (rng.standard_normal((2, 90, 20), np.float32) for _ in range(2))
    k = rng.standard_normal((90, filters), np.float32)
    u[1, 40, 7] = bad
    y = kernel.forward(u, k, threads=2)
    finite = np.isfinite(y).all(1)
    assert not finite[1, 7]
    finite[1, 7] = True
    assert finite.all()
    out = {"du": np.empty_like(u), "dk": np.empty_like(k)}
    kernel.backward(u, k, g, out=out, threads=2)
    assert np.isfinite(out["du"]).all()
    rest = np.delete(out["dk"], 7 if filters > 1 else 0, axis=1)
    assert np.isfinite(rest).all()


def test_the_same_numbers_each_time(kernel):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((5, 700, 48), np.float32)
    k = rng.standard_normal((700, 1), np.float32)
    for threads in (1, 2, 3):
        runs = []
        for _ in range(3):
            out = {"du": np.empty_like(u), "dk": np.empty_like(k)}
            kernel.backward(u, k, u, out=out, threads=threads)
            runs.append((kernel.forward(u, k, threads=threads), out["du"], out["dk"]))
        for run in runs[1:]:
            for x, y in zip(run, runs[0], strict=True):
                np.testing.assert_array_equal(x, y)


def test_callers_at_once(kernel):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((2, 3000, 20), np.float32)
    k = rng.standard_normal((3000, 20), np.float32)
    expected = kernel.forward(u, k, threads=2)
    wrong = []

    def work():
        for _ in range(10):
            if not np.array_equal(kernel.forward(u, k, threads=2), expected):
                wrong.append(True)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


FORK = """
import os, sys
import numpy as np
from ember_keras.cuda import library
kernel = library.Library(sys.argv[1])
u, k = np.random.default_rng(0).standard_normal((2, 2, 300, 20), np.float32)
expected = kernel.forward(u, k[0], threads=2)
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(kernel.forward(u, k[0], threads=2), expected) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork(kernel):
    """In a process of its own: not every backend lets its process fork."""
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(kernel.path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def _convolution(**changes):
    u, k = np.zeros((2, 30, 4), np.float32), np.zeros((30, 4), np.float32)
    conv = library.describe(u, k)
    library.lay_out(conv, {"u": u, "y": u, "g": u})
    for name, value in changes.items():
        setattr(conv, name, value)
    return conv


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 9}, "version"),
        ({"dtype": 7}, "dtype"),
        ({"dtype": -1}, "dtype"),
        ({"filter_dtype": library.FLOAT64}, "dtype"),
        ({"isa": 9}, "instruction set is unknown"),
        ({"batch": -1}, "negative"),
        ({"length": -5}, "negative"),
        ({"size": 1 << 62}, "too large"),
        ({"taps": 1 << 62}, "too large"),
        ({"batch": 1 << 39, "width": 1 << 39, "filters": 1}, "too large"),
        ({"size": 1 << 39, "taps": 1 << 39, "length": 1 << 39}, "too large"),
        ({"skip": -(1 << 63)}, "too large"),
        ({"u": library.Strides(1 << 62, 1, 1)}, "too large"),
        ({"k_tap": -(1 << 63)}, "too large"),
        ({"filters": 3}, "divide"),
        ({"filters": 0}, "divide"),
        ({"taps": 0}, "no taps"),
        ({"period": 29}, "period"),
    ],
)
def test_what_is_refused(kernel, changes, said):
    conv = _convolution(**changes)
    answer = kernel.scratch(conv, library.FORWARD, 1)
    assert answer < 0
    assert said in kernel.error(-answer)
    assert kernel.run_forward(conv, *[None] * 7, 0, 1) == -answer
    assert kernel.run_backward(conv, *[None] * 12, 0, 1) == -answer


def test_pointers_threads_and_scratch(kernel):
    conv = _convolution()
    u, y, k = (np.zeros(240, np.float32).ctypes.data for _ in range(3))
    assert "null" in kernel.error(kernel.run_forward(conv, *[None] * 7, 0, 1))
    assert "null" in kernel.error(kernel.run_backward(conv, *[None] * 12, 0, 1))
    assert "null" in kernel.error(-kernel.scratch(None, 0, 1))
    assert "threads" in kernel.error(-kernel.scratch(conv, 0, 0))
    assert "pass" in kernel.error(-kernel.scratch(conv, 5, 1))
    status = kernel.run_forward(conv, u, k, None, None, None, y, y, 8, 1)
    assert "scratch" in kernel.error(status)
    assert kernel.error(999)
    assert kernel.version() == library.VERSION


def test_the_callers_scratch_is_not_overrun(kernel):
    case = Case(batch=3, width=20, filters=20, size=300, taps=300, length=300)
    rng = np.random.default_rng(0)
    u, k = case.array(rng, (3, 300, 20)), case.array(rng, (300, 20))
    y, expected = np.empty_like(u), kernel.forward(u, k)
    conv = library.describe(u, k)
    library.lay_out(conv, {"u": u, "y": y})
    for threads in (1, 2, 3):
        needed = kernel.scratch(conv, library.FORWARD, threads)
        raw = np.full(needed + 192, 77, np.uint8)
        raw = raw[-raw.ctypes.data % 64 :]
        start = raw[64:].ctypes.data
        data = (x.ctypes.data for x in (u, k))
        assert not kernel.run_forward(
            conv, *data, None, None, None, y.ctypes.data, start, needed, threads
        )
        np.testing.assert_array_equal(y, expected)
        assert (raw[:64] == 77).all() and (raw[64 + needed :] == 77).all()


@pytest.mark.parametrize("time", [1, 50, 195, 330, 641, 1292, 16385, 18433, *POWERS])
def test_scratch_is_bounded(kernel, time):
    """At most 512 bytes x T a thread, whatever the batch and the width; short ones as T = 256."""
    for threads in (1, 2, 4):
        for batch, width in [(1, 16), (64, 256), (3, 1024)]:
            conv = _convolution(
                batch=batch, width=width, filters=width, size=time, taps=time, length=time
            )
            for call in (library.FORWARD, library.BACKWARD):
                assert 0 < kernel.scratch(conv, call, threads) <= 512 * max(time, 256) * threads


RESIDENT = """
import os, sys
import numpy as np
from ember_keras.cuda import library

def read(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

kernel, threads = library.Library(sys.argv[1]), int(sys.argv[3])

def held(time, width):
    u, g = (np.full((2, time, width), 0.5, sys.argv[2]) for _ in range(2))
    k, dk, du = u[0].copy(), np.ones_like(u[0]), np.ones_like(u)
    before = read("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # The peak is counted from here.
    kernel.backward(u, k, g, out={"du": du, "dk": dk}, threads=threads)
    return read("VmHWM") - before

for time in map(int, sys.argv[4:]):
    child = os.fork()  # A process of its own for each, that has freed nothing yet.
    if not child:
        held(100, 4)  # Threads, and the pages of the code that transforms.
        print(held(time, 48), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux alone counts so")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resident_memory_is_bounded(kernel, dtype, threads):
    """Scratch, twiddles and pages: what a process holds more while a call runs."""
    times = (1000, 4096, 16430, 131441)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", RESIDENT, kernel.path]
    command += [dtype, str(threads), *map(str, times)]
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    for time, held in zip(times, map(int, run.stdout.split()), strict=True):
        # A hundred pages for the interpreter, which allocates while it calls.
        assert held <= 512 * time * threads + (400 << 10), time


def test_a_compiler_that_is_not_there(tmp_path):
    with pytest.raises(build.BuildError, match="no C\\+\\+ compiler was found"):
        build.build(tmp_path, compiler="no-such-compiler")
