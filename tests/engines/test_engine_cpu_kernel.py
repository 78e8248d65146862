"""The C++ convolution as each backend reaches it, beside the portable form."""

import numpy as np
import pytest
from engines.support import error, normal, rng, trains

import ember_keras as ek
from ember_keras import backend
from ember_keras.ops import kernels
from ember_keras.ops.kernels import native_fft_conv

from keras import ops  # isort: skip - after ember_keras

pytestmark = [
    pytest.mark.skipif(native_fft_conv.reason() is not None, reason=str(native_fft_conv.reason())),
    pytest.mark.skipif(
        kernels.table.device_of(ops.zeros(())) != "cpu", reason="it runs on processors"
    ),
    pytest.mark.skipif(
        backend.name() not in ("numpy", "torch", "jax", "mlx"),
        reason="it runs on numpy, torch, jax and mlx",
    ),
]
only = {
    name: pytest.mark.skipif(backend.name() != name, reason=f"concerns {name} only")
    for name in ("jax", "mlx", "torch")
}
SIZES = [(2, 40, 12, 40, 12), (3, 37, 5, 53, 1), (1, 64, 32, 20, 8), (2, 1, 3, 9, 3)]
"""B, T, D, taps, F."""


def arguments(sizes, dtype="float32"):
    b, t, width, taps, filters = sizes
    g = rng(*sizes)
    arrays = normal(g, b, t, width), normal(g, taps, filters), normal(g, width)
    return [ops.cast(ops.convert_to_tensor(x), dtype) for x in arrays]


def both(monkeypatch, function):
    """The results of a function with the kernel and without it."""
    found = []
    for setting in ("cpu_fft_conv", "portable"):
        monkeypatch.setenv("EMBER_KERNELS", setting)
        found.append([backend.to_numpy(x).astype("float64") for x in function()])
    return zip(*found, strict=True)


def run(u, k, d, causal=True):
    return ek.ops.fft_conv(u, k, d, causal=causal)


def test_it_runs_where_there_is_a_compiler():
    rows = {row.kernel: row for row in kernels.explain("fft_conv")}
    assert rows["cpu_fft_conv"].runs, rows["cpu_fft_conv"].reason
    row = {row.kernel: row for row in kernels.explain("fft_conv", device="cuda")}["cpu_fft_conv"]
    assert not row.runs
    assert "runs on cpu" in row.reason


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values(sizes, causal, monkeypatch):
    u, k, d = arguments(sizes)
    for got, expected in both(monkeypatch, lambda: [run(u, k, d, causal), run(u, k, None, causal)]):
        assert error(got, expected) < 2e-6


def test_continued_in_chunks(monkeypatch):
    u, k, d = arguments((2, 60, 6, 60, 6))

    def chunks():
        whole, state = [], ek.ops.fft_conv_state(2, 6)
        for start, stop in ((0, 20), (20, 21), (21, 60)):
            y, state = ek.ops.fft_conv(
                u[:, start:stop], k, d, initial_state=state, return_state=True
            )
            whole.append(y)
        return [ops.concatenate(whole, axis=1), run(u, k, d)]

    for got, expected in both(monkeypatch, chunks):
        assert error(got, expected) < 2e-6


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision(dtype, monkeypatch):
    u, k, d = arguments((2, 40, 12, 40, 6), dtype)
    for got, expected in both(monkeypatch, lambda: [ops.cast(run(u, k, d), "float32")]):
        assert error(got, expected) < (1e-3 if dtype == "float16" else 8e-3)


@trains
@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradients(sizes, causal, monkeypatch):
    tensors = arguments(sizes)

    def gradients():
        loss = backend.value_and_grad(lambda u, k, d: ops.sum(ops.tanh(run(u, k, d, causal))))
        return loss(*tensors)[1]

    for got, expected in both(monkeypatch, gradients):
        assert error(got, expected) < 5e-6


def test_nan_stays_in_its_row_and_channel():
    u, k, d = (backend.to_numpy(x).copy() for x in arguments((3, 40, 20, 40, 20)))
    u[1, 5, 7] = np.nan
    broken = ~np.isfinite(backend.to_numpy(run(u, k, d)))
    expected = np.zeros_like(broken)
    expected[1, :, 7] = broken[1, :, 7]
    assert broken[1, 5:, 7].all()
    np.testing.assert_array_equal(broken, expected)


@only["jax"]
def test_jax_transformations(monkeypatch):
    import jax
    import jax.numpy as jnp

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, d = arguments((2, 20, 6, 20, 3))
    us, ks = jnp.stack([u, 2 * u, -u]), jnp.stack([k, k + 1, 2 * k])
    assert "ember_keras_fft_conv" in jax.jit(run).lower(u, k, d).as_text()

    def loss(u, k):
        return jnp.sum(jnp.sin(run(u, k, d)))

    slope = jax.grad(loss, (0, 1))
    for axes in ((0, 0), (0, None), (None, 0)):
        rows = [
            (u if axes[0] is None else us[i], k if axes[1] is None else ks[i]) for i in range(3)
        ]
        given = (u if axes[0] is None else us, k if axes[1] is None else ks)
        found = jax.jit(jax.vmap(slope, axes))(*given)
        for got, expected in zip(
            found, zip(*(slope(*row) for row in rows), strict=True), strict=True
        ):
            assert error(got, np.stack(expected)) < 1e-6
    skips = jnp.stack([d, 2 * d, -d])
    found = jax.vmap(jax.grad(lambda d: jnp.sum(run(u, k, d))))(skips)
    expected = jnp.broadcast_to(jnp.sum(u, axis=(0, 1)), found.shape)
    assert error(found, np.asarray(expected)) < 1e-5
    both_axes = jax.vmap(jax.vmap(lambda u, k: run(u, k, d), (0, None)), (None, 0))(us, ks)
    assert error(both_axes[1, 2], run(us[2], ks[1], d)) < 1e-6

    def second():
        return [jax.grad(lambda u: jnp.sum(jnp.tanh(jax.grad(loss)(u, k))))(u)]

    for got, expected in both(monkeypatch, second):
        assert error(got, expected) < 1e-5


@only["jax"]
def test_an_error_of_the_kernel_is_one_of_python():
    import jax

    from ember_keras.ops.kernels.native_fft_conv import jax_form

    u, k, _ = arguments((2, 20, 6, 20, 4))
    with pytest.raises(jax.errors.JaxRuntimeError, match="does not divide the width"):
        jax_form.run(u, k, None, 0, 20, 0, 40)


@only["mlx"]
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


@only["mlx"]
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


@only["mlx"]
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


@only["mlx"]
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


@only["mlx"]
def test_a_binding_of_another_mlx_is_not_loaded(monkeypatch, tmp_path):
    from ember_keras.cuda import build
    from ember_keras.ops.kernels.native_fft_conv import mlx_form

    monkeypatch.setattr(build, "HERE", tmp_path)
    assert "has yet to be built. Run" in mlx_form._load()[1]
    (tmp_path / build.mlx_name("0.30.0")).write_text("")
    assert "was built for another mlx or Python" in mlx_form._load()[1]
    (tmp_path / build.mlx_name(mlx_form.mx.__version__)).write_text("")
    assert "can't be loaded" in mlx_form._load()[1]


@only["torch"]
def test_the_operator_of_torch():
    import torch

    u, k, d = arguments((2, 20, 6, 20, 3))
    operator = torch.ops.ember_keras.fft_conv
    torch.library.opcheck(operator.default, (u, k, d, 3, 17, 3))
    torch.library.opcheck(operator.default, (u.transpose(0, 1), k, None, 0, 2, 0))
    with pytest.raises(ValueError, match="does not divide the width"):
        operator(u, k[:, :2].repeat(1, 2), None, 0, 20, 0)
    with pytest.raises(ValueError, match="negative"):
        operator(u, k, None, -1, 20, 0)
    with pytest.raises(TypeError, match="int32"):
        operator(u.int(), k, None, 0, 20, 0)


@only["torch"]
def test_torch_derivatives_of_both_orders():
    import torch

    from ember_keras.ops.kernels.native_fft_conv import torch_form

    tensors = [x.double().requires_grad_() for x in arguments((2, 9, 4, 9, 2))]

    def window(*tensors):
        return torch_form.run(*tensors, 1, 8, 1, 18)

    assert torch.autograd.gradcheck(window, tensors)
    assert torch.autograd.gradgradcheck(window, tensors)


@only["torch"]
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
def test_torch_compile_and_torch_func():
    import torch

    from ember_keras.ops.kernels.native_fft_conv import torch_form

    u, k, d = arguments((2, 20, 6, 20, 3))
    compiled = torch.compile(
        lambda u, k, d: run(u, k, d).sin().sum(), backend="aot_eager", fullgraph=True
    )
    slopes = []
    for function in (compiled, lambda *tensors: run(*tensors).sin().sum()):
        leaves = [x.clone().requires_grad_() for x in (u, k, d)]
        function(*leaves).backward()
        slopes.append([x.grad.numpy() for x in leaves])
    for got, expected in zip(*slopes, strict=True):
        assert error(got, expected) < 1e-5

    def loss(u, k):
        return torch_form.run(u, k, d, 0, 20, 0, 40).sin().sum()

    us = torch.stack([u, 2 * u])
    found = torch.func.vmap(torch.func.grad(loss), (0, None))(us, k)
    for row, got in zip(us, found, strict=True):
        assert error(got.numpy(), torch.func.grad(loss)(row, k).numpy()) < 1e-5
