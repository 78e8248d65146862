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
]
only = {
    name: pytest.mark.skipif(backend.name() != name, reason=f"concerns {name} only")
    for name in ("jax", "mlx", "tensorflow", "torch")
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


GATES = ((True, True), (True, False), (False, True))


def gated(u, k, d, *gates, which, causal=True):
    gates = iter(gates)
    given = {name: next(gates) if there else None for name, there in zip(NAMES, which, strict=True)}
    return ek.ops.fft_conv(u, k, d, causal=causal, **given)


NAMES = ("gate_in", "gate_out")


def gates_of(u, which):
    return [gate for gate, there in zip((ops.cos(2 * u), ops.tanh(u)), which, strict=True) if there]


@pytest.mark.parametrize("causal", (True, False))
@pytest.mark.parametrize("which", GATES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gates(sizes, which, causal, monkeypatch):
    u, k, d = arguments(sizes)
    gates = gates_of(u, which)

    def values():
        return [gated(u, k, x, *gates, which=which, causal=causal) for x in (d, None)]

    for got, expected in both(monkeypatch, values):
        assert error(got, expected) < 2e-6
    half = [ops.cast(x, "bfloat16") for x in (u, k, d, *gates)]

    def rounded():
        return [ops.cast(gated(*half, which=which, causal=causal), "float32")]

    for got, expected in both(monkeypatch, rounded):
        assert error(got, expected) < 1e-2


@trains
@pytest.mark.parametrize("which", GATES, ids=str)
def test_gradients_with_gates(which, monkeypatch):
    u, k, d = arguments((2, 60, 12, 60, 6))

    def gradients():
        loss = backend.value_and_grad(lambda *x: ops.sum(ops.tanh(gated(*x, which=which))))
        return loss(u, k, d, *gates_of(u, which))[1]

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
def test_jax_transformations_of_gates(monkeypatch):
    import jax
    import jax.numpy as jnp

    u, k, d = arguments((2, 40, 6, 40, 3))
    gates = gates_of(u, (True, True))

    def loss(*x):
        return jnp.sum(jnp.sin(gated(*x, which=(True, True))))

    def second():
        first = jax.grad(loss, (0, 1, 2, 3, 4))
        total = jax.grad(lambda *x: sum(jnp.sum(jnp.tanh(y)) for y in first(*x)), (0, 1, 2, 3, 4))
        return total(u, k, d, *gates)

    for got, expected in both(monkeypatch, second):
        assert error(got, expected) < 1e-5

    def mapped():
        rows = jnp.stack([gates[1], 2 * gates[1]])
        slopes = jax.grad(loss, (0, 1, 3, 4))
        return jax.jit(jax.vmap(slopes, (None, None, None, None, 0)))(u, k, d, gates[0], rows)

    for got, expected in both(monkeypatch, mapped):
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
    with pytest.raises(ValueError, match="expected gate_in like u"):
        mlx_form.run(u, k, d, 0, 20, 0, 40, gate_in=u[:, :3])
    with pytest.raises(ValueError, match="expected gate_out"):
        mlx_form.run(u, k, d, 0, 20, 0, 40, gate_out=u[:1])


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
    torch.library.opcheck(operator.default, (u, k, d, None, None, 3, 17, 3))
    torch.library.opcheck(operator.default, (u, k, d, u.cos(), u.sin(), 0, 20, 0))
    torch.library.opcheck(operator.default, (u.transpose(0, 1), k, *[None] * 3, 0, 2, 0))
    with pytest.raises(ValueError, match="does not divide the width"):
        operator(u, k[:, :2].repeat(1, 2), *[None] * 3, 0, 20, 0)
    with pytest.raises(ValueError, match="negative"):
        operator(u, k, *[None] * 3, -1, 20, 0)
    with pytest.raises(TypeError, match="int32"):
        operator(u.int(), k, *[None] * 3, 0, 20, 0)


@only["torch"]
def test_the_operator_of_torch_has_gradients_by_itself():
    """Of both orders, with and without what it may be given besides."""
    import torch

    u, k, d = (x.double().requires_grad_() for x in arguments((2, 9, 4, 9, 2)))
    gates = [u.detach().cos().requires_grad_(), u.detach()[:, 1:].sin().requires_grad_()]
    operator = torch.ops.ember_keras.fft_conv
    for rest in ((None, None, None), (d, None, None), (d, *gates)):
        given = (u, k, *rest, 1, 8, 1)
        assert torch.autograd.gradcheck(operator, given)
        assert torch.autograd.gradgradcheck(operator, given)
    given = [x.detach().requires_grad_() for x in (u, k, d, *gates)]
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    compiled(*given, 1, 8, 1).square().sum().backward()
    expected = torch.autograd.grad(operator(u, k, d, *gates, 1, 8, 1).square().sum(), (u, k))
    for x, wanted in zip(given, expected, strict=False):
        assert error(x.grad, wanted.numpy()) < 1e-6


@only["torch"]
def test_it_runs_in_the_threads_of_torch():
    """As many as torch uses, and no others."""
    import torch

    from ember_keras.cuda import library

    kernel = library.load()[0]
    assert kernel.use_openmp(torch._C.__file__)
    assert not library.load()[0].use_openmp("no-such-library.so")
    u, k, d = arguments((4, 300, 40, 300, 40))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found += [run(u, k, d), torch.ops.ember_keras.fft_conv(u, k, d, None, None, 0, 300, 0)]
    finally:
        torch.set_num_threads(threads)
    for y in found[1:]:
        assert error(y, found[0].numpy()) < 1e-6


@only["torch"]
def test_torch_derivatives_of_both_orders():
    import torch

    from ember_keras.ops.kernels.native_fft_conv import torch_form

    tensors = [x.double().requires_grad_() for x in arguments((2, 9, 4, 9, 2))]

    def window(u, k, d, gate_in=None, gate_out=None):
        return torch_form.run(u, k, d, 1, 8, 1, 18, gate_in, gate_out)

    gates = [tensors[0].detach().cos(), tensors[0].detach()[:, 1:].sin()]
    for given in (tensors, [*tensors, *(gate.requires_grad_() for gate in gates)]):
        assert torch.autograd.gradcheck(window, given)
        assert torch.autograd.gradgradcheck(window, given)


@only["torch"]
@pytest.mark.parametrize("setting", ("auto", "complex_fft"))
def test_torch_compile_where_no_gradient_is_wanted(setting, monkeypatch):
    import torch

    monkeypatch.setenv("EMBER_KERNELS", setting)
    u, k, d = arguments((2, 20, 6, 20, 3))
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    expected = run(u, k, d).numpy()
    assert error(compiled(u, k, d).numpy(), expected) < 1e-6
    with torch.no_grad():
        assert error(compiled(u.clone().requires_grad_(), k, d).numpy(), expected) < 1e-6


@only["torch"]
def test_torch_operators_refuse_what_they_would_misread():
    import torch

    import ember_keras.ops.kernels.native_fft_conv.torch_form  # noqa: F401 - the operators

    u, k, d = arguments((3, 20, 6, 20, 6))
    forward, backward = torch.ops.ember_keras.fft_conv, torch.ops.ember_keras.fft_conv_backward
    wrong = {
        "k of": (u, k.double(), d, None, None),
        "d of": (u, k, d[:2], None, None),
        "d of .* torch.float64": (u, k, d.double(), None, None),
        "gate_in of": (u, k, d, torch.ones(1, 1, 1), None),
        "gate_out of": (u, k, d, None, torch.ones(3, 20, 6).double()),
        "u and k": (u[0], k, d, None, None),
    }
    for words, tensors in wrong.items():
        with pytest.raises(ValueError, match=words):
            forward(*tensors, 0, 20, 0)
        with pytest.raises(ValueError, match=words):
            backward(u, *tensors, 0, 0)
    for g in (torch.ones(1, 20, 1), u.double(), u[0]):
        with pytest.raises(ValueError, match="g of"):
            backward(g, u, k, d, None, None, 0, 0)


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

    def with_gates(gate_in, gate_out):
        return torch_form.run(u, k, d, 0, 20, 0, 40, gate_in, gate_out)

    pairs = us.cos(), us.sin().movedim(0, 2)
    for axes in ((0, 2), (None, 2)):
        given = pairs if axes[0] == 0 else (pairs[0][1], pairs[1])
        found = torch.func.vmap(with_gates, axes)(*given)
        for at in range(2):
            gate_in = pairs[0][at if axes[0] == 0 else 1]
            expected = with_gates(gate_in, pairs[1].movedim(2, 0)[at])
            assert error(found[at].numpy(), expected.numpy()) < 1e-6


@only["tensorflow"]
@pytest.mark.parametrize("jit", (False, True), ids=("graph", "jit"))
@pytest.mark.parametrize("batch", (None, 3), ids=("any batch", "one batch"))
@pytest.mark.parametrize("gates", (False, True), ids=("no gates", "gates"))
def test_tensorflow_functions_of_both_orders(gates, batch, jit, monkeypatch):
    import tensorflow as tf

    tensors = arguments((3, 20, 6, 20, 3))
    tensors += gates_of(tensors[0], (gates, gates))

    def slopes(*tensors):
        with tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                loss = tf.reduce_sum(tf.sin(gated(*tensors, which=(gates, gates))))
            first = inner.gradient(loss, tensors)
            total = sum(tf.reduce_sum(tf.tanh(x)) for x in first)
        return [*first, *outer.gradient(total, tensors)]

    names = [tf.TensorSpec((batch, 20, 6) if x.shape[0] == 3 else x.shape) for x in tensors]
    monkeypatch.setenv("EMBER_KERNELS", "portable")
    expected = slopes(*tensors)
    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    compiled = tf.function(slopes, input_signature=names, jit_compile=jit)
    assert "XlaCallModule" in operators(compiled.get_concrete_function().graph)
    for got in (slopes(*tensors), compiled(*tensors)):
        for x, y in zip(got, expected, strict=True):
            assert error(x.numpy(), y.numpy()) < 1e-5


def operators(graph):
    """The names of the operators in a graph of TensorFlow and in its functions."""
    graph = graph.as_graph_def()
    nodes = [*graph.node, *(x for each in graph.library.function for x in each.node_def)]
    return {node.op for node in nodes}


@only["tensorflow"]
def test_tensorflow_float64_and_an_empty_batch(monkeypatch):
    u, k, d = arguments((2, 40, 12, 40, 6), "float64")
    for got, expected in both(monkeypatch, lambda: [run(u, k, d), run(u, k, None, False)]):
        assert error(got, expected) < 1e-14
    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    assert tuple(run(u[:0], k, d).shape) == (0, 40, 12)


@only["tensorflow"]
def test_tensorflow_lays_out_what_it_transposes(monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, d = arguments((2, 20, 6, 20, 3))

    @tf.function(jit_compile=True)
    def turned(u, k):
        y = run(2 * tf.transpose(u, (2, 1, 0)), tf.transpose(k), d)
        return tf.transpose(y, (2, 1, 0)) + 1

    found = turned(tf.transpose(u, (2, 1, 0)), tf.transpose(k)) - 1
    monkeypatch.setenv("EMBER_KERNELS", "portable")
    expected = run(2 * u, k, d)
    assert error(tf.transpose(found, (2, 1, 0)).numpy(), expected.numpy()) < 1e-6


@only["tensorflow"]
def test_tensorflow_loops_and_cotangents_without_a_shape(monkeypatch):
    import tensorflow as tf

    tensors = arguments((2, 20, 6, 20, 3), "float64")

    @tf.custom_gradient
    def forgotten(y):
        return y, lambda g: tf.py_function(lambda g: 2 * g, [g], tf.float64)

    def slopes(*tensors):
        u, *filters = tensors
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            u = tf.while_loop(
                lambda i, u: i < 3, lambda i, u: (i + 1, tf.sin(run(u, *filters))), (0, u)
            )[1]
            loss = tf.reduce_sum(tf.sin(forgotten(run(u, *filters))))
        return tape.gradient(loss, tensors)

    monkeypatch.setenv("EMBER_KERNELS", "portable")
    expected = slopes(*tensors)
    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    for got, right in zip(tf.function(slopes)(*tensors), expected, strict=True):
        assert error(got.numpy(), right.numpy()) < 1e-12


@only["tensorflow"]
def test_tensorflow_maps_over_it(monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    u, k, d = arguments((2, 20, 6, 20, 3))

    def slope(u):
        with tf.GradientTape() as tape:
            tape.watch(u)
            loss = tf.reduce_sum(tf.sin(run(u, k, d)))
        return tape.gradient(loss, u)

    us = tf.stack([u, 2 * u, -u])
    expected = tf.stack([slope(x) for x in us])
    assert error(tf.vectorized_map(slope, us).numpy(), expected.numpy()) < 1e-6


@only["tensorflow"]
@pytest.mark.parametrize("jit", ("auto", True))
def test_tensorflow_fits_with_a_last_batch_of_another_size(jit, monkeypatch):
    import keras

    x = normal(rng(1), 10, 20, 6)

    def losses():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((20, 6))
        mixer = ek.registry.sequence_mixers.build("hyena")
        model = keras.Model(inputs, mixer(inputs))
        model.compile("sgd", "mse", jit_compile=jit)
        found = model.fit(x, x, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"]
        return [np.array(found), model.predict(x, batch_size=4, verbose=0)]

    for got, expected in both(monkeypatch, losses):
        assert error(got, expected) < 1e-5


@only["tensorflow"]
def test_a_saved_model_holds_the_kernel_that_ran(tmp_path, monkeypatch):
    import tensorflow as tf

    u, k, d = arguments((2, 20, 6, 20, 3))
    for setting, holds in (("cpu_fft_conv", True), ("complex_fft", False)):
        monkeypatch.setenv("EMBER_KERNELS", setting)
        module = tf.Module()
        module.run = tf.function(
            lambda u: run(u, k, d), input_signature=[tf.TensorSpec((None, 20, 6))]
        )
        expected = module.run(u).numpy()
        tf.saved_model.save(module, tmp_path / setting)
        loaded = tf.saved_model.load(tmp_path / setting)
        assert error(loaded.run(u).numpy(), expected) < 1e-6
        graph = loaded.run.get_concrete_function(tf.TensorSpec((None, 20, 6))).graph
        assert ("XlaCallModule" in operators(graph)) == holds


@only["tensorflow"]
def test_an_error_of_the_kernel_is_one_of_tensorflow():
    import tensorflow as tf

    from ember_keras.ops.kernels.native_fft_conv import tensorflow_form

    u, k, _ = arguments((2, 20, 6, 20, 4))
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not divide the width"):
        tensorflow_form.run(u, k, None, 0, 20, 0, 40)


@only["tensorflow"]
def test_an_xla_that_takes_no_handlers_says_why(monkeypatch, tmp_path):
    from ember_keras.cuda import library, xla
    from ember_keras.ops.kernels import tensorflow_calls
    from ember_keras.ops.kernels.native_fft_conv import tensorflow_form

    kernel = library.load()[0]
    handlers = {tensorflow_form.FORWARD: kernel.xla_forward}
    assert xla.register(tensorflow_calls.XLA, handlers) is None
    other = {tensorflow_form.FORWARD: kernel.xla_backward}
    assert "Duplicate" in xla.register(tensorflow_calls.XLA, other)
    assert "takes no handlers" in xla.register(kernel.path, handlers)
    assert "takes no handlers" in xla.register(tmp_path / "none.so", handlers)
    monkeypatch.setattr(xla, "MAJOR", 1)
    assert "written for version 1" in xla.register(tensorflow_calls.XLA, handlers)
