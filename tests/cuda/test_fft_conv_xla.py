"""The graphics card's handlers for XLA: on the twin under jax, and with frames made by hand."""

import ctypes
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import twin

from ember_keras import backend
from ember_keras.cuda import build, library
from ember_keras.ops.engines.fft_conv import naive

pytestmark = [
    pytest.mark.skipif(backend.name() != "jax", reason="the handlers of XLA, reached by jax"),
    pytest.mark.slow,
]

HERE = Path(__file__).parent
TOLERANCES = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}
HEADERS = ("-I", Path(build.__file__).parent, "-I", HERE)


def compiled(target, *sources, flags=()):
    import jax

    compiler = build.find_compiler()
    options = ("-std=c++17", "-Wall", "-Wextra", "-O1", *HEADERS, "-I", jax.ffi.include_dir())
    command = [str(part) for part in (*compiler, *options, *flags, *sources, "-o", target)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr[:3000]
    return target


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """The twin's handlers behind an interface that has streams and a card's memory."""
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("xla")
    flags = ("-shared", "-fPIC", f"-Wl,-rpath,{folder}")
    sources = HERE / "xla_host.cpp", twin.compile_twin(folder)
    return compiled(folder / "host.so", *sources, flags=flags)


@pytest.fixture(scope="session")
def registered(path):
    import jax

    if backend.device_kind() != "cpu":
        pytest.skip("the twin computes on the processor, and jax does not here")
    host = ctypes.CDLL(str(path))
    for name in ("forward", "backward"):
        handler = jax.ffi.pycapsule(getattr(host, f"host_{name}"))
        jax.ffi.register_ffi_target(f"twin_{name}", handler, platform="cpu")
    return host


@pytest.fixture
def convolve(registered, monkeypatch):
    """The binding of jax, whose calls go to the twin; each took scratch and gave it back."""
    from ember_keras.ops.kernels.native_fft_conv import jax_form

    monkeypatch.setattr(jax_form, "FORWARD", "twin_forward")
    monkeypatch.setattr(jax_form, "BACKWARD", "twin_backward")
    before = registered.host_calls()

    def run(u, k, d, causal=True):
        time, taps = u.shape[1], k.shape[0]
        start = 0 if causal else (taps - 1) // 2
        return jax_form.run(u, k, d, start, time, 0, 2 * (time + taps))

    yield run
    assert registered.host_calls() > before
    assert registered.host_faults() == 0


def inputs(b, t, width, taps, filters, dtype="float32", seed=0):
    """u, g as stored in the dtype, k and d in float32; each also in float64."""
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    u, g = (jnp.asarray(rng.standard_normal((b, t, width)), dtype) for _ in range(2))
    k, d = (jnp.asarray(rng.standard_normal(s), "float32") for s in ((taps, filters), width))
    return (u, k, d, g), [np.asarray(x).astype("float64") for x in (u, k, d, g)]


def assert_close(found, expected, tolerance):
    found = np.asarray(found).astype("float64")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


SIZES = [(2, 40, 12, 40, 12), (3, 37, 6, 53, 2), (1, 300, 3, 20, 1), (2, 1, 3, 9, 3)]
"""B, T, D, taps, F."""


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("causal", (True, False))
def test_values(dtype, causal, convolve):
    import jax

    for sizes in SIZES:
        (u, k, d, _), wide = inputs(*sizes, dtype)
        for skip in (True, False):
            arrays = (u, k, d if skip else None)
            expected = naive.fft_conv(*wide[:2], wide[2] if skip else None, causal=causal)
            for run in (convolve, jax.jit(lambda *arrays: convolve(*arrays, causal))):
                y = run(*arrays, causal) if run is convolve else run(*arrays)
                assert y.dtype == dtype
                assert_close(y, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("causal", (True, False))
def test_gradients(dtype, causal, convolve):
    import jax

    def slopes(u, k, d, g):
        _, pull = jax.vjp(lambda *x: convolve(*x, causal), u, k, d)
        return pull(g)

    for sizes in SIZES:
        (u, k, d, g), wide = inputs(*sizes, dtype)
        for skip in (True, False):
            found = jax.jit(slopes)(u, k, d if skip else None, g)
            expected = naive.gradients(*wide[:2], skip * wide[2], wide[3], causal=causal)
            for name, x in zip("ukd" if skip else "uk", found, strict=False):
                assert_close(x, expected[name], TOLERANCES[dtype])


def test_second_derivatives(convolve):
    """They are those of jax's FFT."""
    import jax
    import jax.numpy as jnp

    (u, k, d, _), _ = inputs(2, 20, 6, 20, 3)

    def slope(run, u):
        return jax.grad(lambda u: jnp.sin(run(u, k, d)).sum())(u)

    def plain(u, k, d):
        uf, kf = jnp.fft.rfft(u, 40, 1), jnp.fft.rfft(jnp.repeat(k, 2, 1), 40, 0)
        return jnp.fft.irfft(uf * kf, 40, 1)[:, :20] + d * u

    found, expected = (
        jax.jit(jax.grad(lambda u, run=run: jnp.tanh(slope(run, u)).sum()))(u)
        for run in (convolve, plain)
    )
    assert_close(found, np.asarray(expected).astype("float64"), 1e-5)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, None)], ids=str)
def test_vmap(axes, convolve):
    """Over signals, filters or both: values, and the gradients of each entry."""
    import jax
    import jax.numpy as jnp

    us, ks = zip(*(inputs(2, 30, 6, 30, 3, seed=seed)[0][:2] for seed in range(3)), strict=True)
    _, (_, _, d, g) = inputs(2, 30, 6, 30, 3)
    given = [
        x[0] if axis is None else jnp.stack(x, axis) for x, axis in zip((us, ks), axes, strict=True)
    ]
    d32, g32 = (jnp.asarray(x, "float32") for x in (d, g))

    def both(u, k):
        y, pull = jax.vjp(lambda *x: convolve(*x), u, k, d32)
        return (y, *pull(g32))

    found = jax.jit(jax.vmap(both, axes))(*given)
    for i in range(3):
        u, k = (np.asarray(x[0 if axis is None else i]).astype("float64")
                for x, axis in zip((us, ks), axes, strict=True))  # fmt: skip
        slopes = naive.gradients(u, k, d, g)
        for x, expected in zip(
            found, (naive.fft_conv(u, k, d), *map(slopes.get, "ukd")), strict=True
        ):
            assert_close(x[i], expected, 2e-6)


def test_vmap_in_vmap(convolve):
    import jax
    import jax.numpy as jnp

    us, ks = zip(*(inputs(2, 30, 6, 30, 3, seed=seed)[0][:2] for seed in range(3)), strict=True)
    _, (_, _, d, _) = inputs(2, 30, 6, 30, 3)
    over_u = jax.vmap(lambda u, k: convolve(u, k, jnp.asarray(d, "float32")), (0, None))
    found = jax.vmap(over_u, (None, 0))(jnp.stack(us), jnp.stack(ks[:2]))
    for i in range(2):
        for j in range(3):
            u, k = (np.asarray(x).astype("float64") for x in (us[j], ks[i]))
            assert_close(found[i, j], naive.fft_conv(u, k, d), 2e-6)


def test_errors_are_those_of_python(convolve, registered):
    import jax

    (u, k, d, _), wide = inputs(2, 20, 6, 20, 4)
    refused = jax.errors.JaxRuntimeError
    with pytest.raises(refused, match="the number of filters does not divide the width"):
        convolve(u, k, d)
    with pytest.raises(refused, match="the filter has no taps"):
        convolve(u, k[:0, :3], d)
    with pytest.raises(refused, match="its buffers do not go together"):
        convolve(u, k[:, :3], d[:5])
    with pytest.raises(refused, match="expected floating point u"):
        convolve(u.astype("int32"), k[:, :3], d)
    with jax.enable_x64(True), pytest.raises(refused, match="a dtype is unknown"):
        convolve(u.astype("float64"), k[:, :3], d)
    registered.host_fill(1)
    try:
        with pytest.raises(refused, match="the card has no room"):
            convolve(u, k[:, :3], d)
    finally:
        registered.host_fill(0)
    assert_close(convolve(u, k[:, :3], d), naive.fft_conv(wide[0], wide[1][:, :3], wide[2]), 2e-6)


SHARDED = """
import ctypes, sys
import jax, jax.numpy as jnp, numpy as np
import ember_keras
from ember_keras.ops.kernels.native_fft_conv import jax_form
from jax.sharding import Mesh, PartitionSpec as P

host = ctypes.CDLL(sys.argv[1])
rng = np.random.default_rng(0)
u, g = (jnp.asarray(rng.standard_normal((4, 30, 6)), "float32") for _ in range(2))
k, d = jnp.asarray(rng.standard_normal((30, 3)), "float32"), jnp.arange(6.0)

def both(u, k, d, g):
    y, pull = jax.vjp(lambda *x: jax_form.run(*x, 0, 30, 0, 60), u, k, d)
    return (y, *pull(g))

def sharded(u, k, d, g):
    y, du, dk, dd = both(u, k, d, g)
    return y, du, jax.lax.psum(dk, "batch"), jax.lax.psum(dd, "batch")

def calls(function):
    before = host.host_calls()
    found = jax.block_until_ready(jax.jit(function)(u, k, d, g))
    return found, host.host_calls() - before

# One name on two platforms: the processor's handler answers here.
handlers = {"FORWARD": host.host_forward, "BACKWARD": host.host_backward}
for name, handler in handlers.items():
    target = getattr(jax_form, name)
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handler), platform="CUDA")
if jax_form.library.load()[0] is not None:
    assert calls(lambda *x: both(*x))[1] == 0

for name, handler in handlers.items():
    setattr(jax_form, name, f"twin_{name}")
    jax.ffi.register_ffi_target(f"twin_{name}", jax.ffi.pycapsule(handler), platform="cpu")
mesh = Mesh(np.array(jax.devices()), ("batch",))
assert mesh.size == 2
batch = P("batch")
spread = jax.shard_map(
    sharded, mesh=mesh, in_specs=(batch, P(), P(), batch), out_specs=(batch, batch, P(), P()),
    check_vma=False,
)
(alone, one), (found, two) = calls(lambda *x: both(*x)), calls(spread)
assert (one, two) == (2, 4), (one, two)
for x, expected in zip(found, alone):
    scale = abs(np.asarray(expected)).max()
    assert abs(np.asarray(x) - np.asarray(expected)).max() <= 2e-6 * scale
assert host.host_faults() == 0
print("fine")
"""


def test_shard_map_and_one_name_on_two_platforms(path):
    """On two devices each computes its own rows: two calls for each of the one without."""
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARDED, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "fine", run.stderr[-3000:]


def test_both_platforms_get_one_name(path, monkeypatch):
    """What the binding registers where both libraries are there."""
    import jax

    from ember_keras.ops.kernels.native_fft_conv import jax_form

    card = library.GpuLibrary(path.parent / build.TWIN_NAME)
    monkeypatch.setattr(library, "load_gpu", lambda: (card, None))
    found = []
    monkeypatch.setattr(
        jax.ffi, "register_ffi_target", lambda name, _, platform: found.append((platform, name))
    )
    runpy.run_path(jax_form.__file__)
    platforms = ["CUDA"] if library.load()[0] is None else ["CUDA", "cpu"]
    names = (jax_form.FORWARD, jax_form.BACKWARD)
    assert sorted(found) == [(platform, name) for platform in platforms for name in names]


def test_it_is_lowered_for_cuda():
    """Without a card: the call is in the program that XLA would compile for one."""
    import jax

    from ember_keras.ops.kernels.native_fft_conv import jax_form

    (u, k, d, _), _ = inputs(2, 20, 6, 20, 3)
    traced = jax.jit(jax.grad(lambda u: jax_form.run(u, k, d, 0, 20, 0, 40).sum())).trace(u)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert f"custom_call @{jax_form.BACKWARD}(" in text


FRAMES = """\
-- forward
stream
card -1
scratch of pass 0, wanted 1
allocate 64 aligned to 16
forward of (2, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 256 d -1 y 512
free 64
fine
-- backward with skips
stream
card -1
scratch of pass 1, wanted 3
allocate 64 aligned to 16
backward: u 0 k 256 d 768 g 512 du 1024 dk 1280 dd 1536
free 64
fine
-- leading axes
stream
card -1
scratch of pass 0, wanted 1
allocate 64 aligned to 16
forward of (1, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 256 d 512 y 768
forward of (1, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 262 d 512 y 784
forward of (1, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 268 d 512 y 800
forward of (1, 5, 4) with (3, 2), 4 from 2, skip 1: u 20 k 256 d 512 y 816
forward of (1, 5, 4) with (3, 2), 4 from 2, skip 1: u 20 k 262 d 512 y 832
forward of (1, 5, 4) with (3, 2), 4 from 2, skip 1: u 20 k 268 d 512 y 848
free 64
fine
-- no scratch
stream
card -1
scratch of pass 0, wanted 1
forward of (2, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 256 d -1 y 512
fine
-- another stage
fine
-- stream
stream
an error
-- card
stream
card -1
error 13: the card said no
an error
-- scratch
stream
card -1
scratch of pass 0, wanted 1
error 3: too large
an error
-- allocate
stream
card -1
scratch of pass 0, wanted 1
allocate 64 aligned to 16
an error
-- forward
stream
card -1
scratch of pass 0, wanted 1
allocate 64 aligned to 16
forward of (2, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 256 d -1 y 512
free 64
error 13: the card said no
an error
-- free
stream
card -1
scratch of pass 0, wanted 1
allocate 64 aligned to 16
forward of (2, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 256 d -1 y 512
free 64
an error
-- the first of two entries
stream
card -1
scratch of pass 0, wanted 1
allocate 64 aligned to 16
forward of (2, 5, 4) with (3, 2), 4 from 2, skip 1: u 0 k 256 d -1 y 512
free 64
error 13: the card said no
an error
-- too few buffers
error 3: fft_conv: another number of buffers than its attributes say
an error
-- another width
error 3: fft_conv: its buffers do not go together
an error
-- another batch
error 3: fft_conv: its buffers do not go together
an error
-- other leading axes
error 3: fft_conv: its buffers do not go together
an error
-- question
fine: version 0.1, traits 0
"""
"""What XLA and the kernel are asked for, call after call: see xla_frame.cpp."""


def test_frames_made_by_hand(tmp_path):
    """XLA's stream and memory reach the kernel, and every block goes back, also after errors."""
    handlers = Path(build.__file__).parent / "gpu" / "xla.cpp"
    program = compiled(tmp_path / "frame", HERE / "xla_frame.cpp", handlers)
    run = subprocess.run([program], capture_output=True, text=True)
    assert run.stdout == FRAMES
