"""The C++ convolution as a primitive of mlx."""

import os
import subprocess
import sys

import numpy as np
import pytest
from engines.convolutions import arguments, gated, gates_of, only, run
from engines.support import error

pytestmark = only("mlx")


def test_mlx_transformations(monkeypatch):
    import mlx.core as mx

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, d = arguments((2, 20, 6, 20, 3))
    us, ks = mx.stack([u, 2 * u, -u]), mx.stack([k, k + 1, 2 * k])

    def loss(u, k):
        return mx.sum(mx.sin(run(u, k, d)))

    slope = mx.grad(loss, (0, 1))
    for axes in ((0, 0), (0, None), (None, 0)):
        rows = [
            (u if axes[0] is None else us[i], k if axes[1] is None else ks[i]) for i in range(3)
        ]
        given = (u if axes[0] is None else us, k if axes[1] is None else ks)
        expected = [mx.stack(each) for each in zip(*(slope(*row) for row in rows), strict=True)]
        for got, right in zip(mx.compile(mx.vmap(slope, axes))(*given), expected, strict=True):
            assert error(got, np.array(right)) < 1e-6
        values = mx.vmap(lambda u, k: run(u, k, d), axes)
        right = np.array(mx.stack([run(*row, d) for row in rows]))
        assert error(values(*given), right) < 1e-6
        total = mx.grad(lambda *x: mx.sum(mx.sin(values(*x))), (0, 1))(*given)  # noqa: B023
        for got, right, axis in zip(total, expected, axes, strict=True):
            assert error(got, np.array(right if axis == 0 else mx.sum(right, 0))) < 1e-5


def summed(u, k, d):
    """The convolution of 20 positions as products of matrices, all of whose derivatives mlx has."""
    import mlx.core as mx

    t, j, s = np.ogrid[:20, :20, : k.shape[0]]
    places = mx.array((t - j == s).astype("float32"))
    shared = mx.array(np.repeat(np.eye(k.shape[1], dtype="float32"), u.shape[2] // k.shape[1], 1))
    return mx.einsum("tjs,bjc,sc->btc", places, u, k @ shared) + u * d


@pytest.mark.parametrize("at", ((0,), (1,), (2,), (0, 1, 2)))
def test_mlx_derivatives_of_second_order(at, monkeypatch):
    import mlx.core as mx

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")

    def second(form):
        def norm(*tensors):
            slopes = mx.grad(lambda *x: mx.sum(mx.tanh(form(*x))), at)(*tensors)
            return sum(mx.sum(mx.tanh(x)) for x in slopes)

        return mx.grad(norm, (0, 1, 2))

    tensors = arguments((2, 20, 6, 23, 3))
    for got, right in zip(mx.compile(second(run))(*tensors), second(summed)(*tensors), strict=True):
        assert error(got, np.array(right)) < 1e-5


@pytest.mark.parametrize("at", ((0,), (1,), (2,), (0, 1, 2)))
def test_mlx_derivatives_forward(at, monkeypatch):
    """Of values, and of gradients, along some of the tensors."""
    import mlx.core as mx

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    tensors = arguments((2, 20, 6, 20, 3))  # mlx itself lacks the rule for the gradient of a cut.
    along = [mx.cos(3 * tensors[i]) for i in at]

    def pushed(function):
        def part(*some):
            given = list(tensors)
            for i, x in zip(at, some, strict=True):
                given[i] = x
            return function(*given)

        return mx.jvp(part, [tensors[i] for i in at], along)[1]

    def slopes(form):
        return mx.grad(lambda *x: mx.sum(mx.tanh(form(*x))), (0, 1, 2))

    for functions in ((run, summed), (slopes(run), slopes(summed))):
        for got, right in zip(*map(pushed, functions), strict=True):
            assert error(got, np.array(right)) < 1e-5


@pytest.mark.parametrize("which", ((True, False), (False, True), (True, True)), ids=str)
def test_mlx_derivatives_with_gates(which, monkeypatch):
    """Of both orders and forward, compiled and mapped, beside products of matrices."""
    import mlx.core as mx

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, d = arguments((2, 20, 6, 20, 3))
    tensors = (u, k, d, *gates_of(u, which))
    every = tuple(range(len(tensors)))

    def kernel(*tensors):
        return gated(*tensors, which=which)

    def products(u, k, d, *gates):
        y = summed(u * gates[0] if which[0] else u, k, d)
        return y * gates[-1] if which[1] else y

    def slopes(form):
        return mx.grad(lambda *x: mx.sum(mx.tanh(form(*x))), every)

    def second(form, at):
        return mx.grad(lambda *x: sum(mx.sum(mx.tanh(y)) for y in slopes(form)(*x)), at)

    def forward(form):
        return lambda *x: mx.jvp(form, x, [mx.cos(3 * each) for each in x])[1]

    def mapped(form):
        axes = (0, *[None] * (len(tensors) - 1))
        return lambda u, *x: mx.vmap(slopes(form), axes)(mx.stack([u, -u]), *x)

    makers = [slopes, forward, mapped, lambda form: second(form, every)]
    makers += [lambda form, at=at: lambda *x: [second(form, at)(*x)] for at in every]
    for make in makers:
        found, expected = mx.compile(make(kernel))(*tensors), make(products)(*tensors)
        for got, right in zip(found, expected, strict=True):
            assert error(got, np.array(right)) < 2e-5


def test_the_primitive_of_mlx():
    import mlx.core as mx

    from ember_keras.ops.kernels.native_fft_conv import mlx_form

    u, k, d = arguments((2, 20, 6, 20, 3))
    turned = mlx_form.run(mx.transpose(u, (1, 0, 2)), k, d, 0, 2, 0, 40)  # read where it lies
    assert error(turned, np.array(run(mx.contiguous(mx.transpose(u, (1, 0, 2))), k, d))) < 1e-6
    with pytest.raises(ValueError, match="does not divide the width"):
        mlx_form.run(u, mx.ones((3, 4)), None, 0, 20, 0, 40)
    with pytest.raises(ValueError, match="negative"):
        mlx_form.run(u, k, None, -1, 20, 0, 40)
    with pytest.raises(ValueError, match="floating point"):
        mlx_form.run(u.astype(mx.int32), k, None, 0, 20, 0, 40)
    with pytest.raises(ValueError, match=r"expected d \(D,\)"):
        mlx_form.run(u, k, d[:3], 0, 20, 0, 40)
    with pytest.raises(ValueError, match="expected gate_in like u"):
        mlx_form.run(u, k, d, 0, 20, 0, 40, gate_in=u[:, :3])
    with pytest.raises(ValueError, match="expected gate_out"):
        mlx_form.run(u, k, d, 0, 20, 0, 40, gate_out=u[:1])


NO_MEMORY = """
import resource
import mlx.core as mx
import ember_keras as ek
u, k = mx.ones((1, 1 << 19, 2)), mx.ones((1 << 19, 2))
mx.eval(u, k)
def convolve():
    return ek.ops.fft_conv(u[:, :64], k[:64]), ek.ops.fft_conv(u, k)
small, _ = convolve()  # which starts the threads
mx.eval(small)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), -1))
large = convolve()[1]
assert mx.all(mx.isnan(large))
try:
    convolve()
except RuntimeError as error:
    print(error)
mx.eval(convolve()[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone limits so")
def test_a_call_without_memory_gives_nan_and_the_next_one_raises():
    environment = {**os.environ, "EMBER_KERNELS": "cpu_fft_conv"}
    command = [sys.executable, "-c", NO_MEMORY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "in an earlier call, whose results are NaN" in done.stdout


def test_a_binding_of_another_mlx_is_not_loaded(monkeypatch, tmp_path):
    from ember_keras.cuda import build
    from ember_keras.ops.kernels.native_fft_conv import mlx_form

    monkeypatch.setattr(build, "HERE", tmp_path)
    assert "has yet to be built. Run" in mlx_form._load()[1]
    (tmp_path / build.mlx_name("0.30.0")).write_text("")
    assert "was built for another mlx or Python" in mlx_form._load()[1]
    (tmp_path / build.mlx_name(mlx_form.mx.__version__)).write_text("")
    assert "can't be loaded" in mlx_form._load()[1]


def test_a_binding_that_is_cut_short_is_not_loaded(monkeypatch, tmp_path):
    from ember_keras.cuda import build
    from ember_keras.ops.kernels.native_fft_conv import mlx_form

    name = build.mlx_name(mlx_form.mx.__version__)
    whole = (build.HERE / name).read_bytes()
    if not whole.startswith(b"\x7fELF"):
        pytest.skip("Only ELF files are looked at.")
    monkeypatch.setattr(build, "HERE", tmp_path)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert "is cut short. Run" in mlx_form._load()[1]
