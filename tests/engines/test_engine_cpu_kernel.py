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
        backend.name() not in ("numpy", "torch", "jax", "tensorflow"),
        reason="it runs on numpy, torch, jax and tensorflow",
    ),
]
only = {
    name: pytest.mark.skipif(backend.name() != name, reason=f"concerns {name} only")
    for name in ("jax", "tensorflow", "torch")
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


@only["tensorflow"]
@pytest.mark.parametrize("jit", (False, True), ids=("graph", "jit"))
@pytest.mark.parametrize("batch", (None, 3), ids=("any batch", "one batch"))
def test_tensorflow_functions_of_both_orders(batch, jit, monkeypatch):
    import tensorflow as tf

    tensors = arguments((3, 20, 6, 20, 3))

    def slopes(*tensors):
        with tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                loss = tf.reduce_sum(tf.sin(run(*tensors)))
            first = inner.gradient(loss, tensors)
            total = sum(tf.reduce_sum(tf.tanh(x)) for x in first)
        return [*first, *outer.gradient(total, tensors)]

    names = [tf.TensorSpec((batch, 20, 6)), *(tf.TensorSpec(x.shape) for x in tensors[1:])]
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
    from ember_keras.ops.kernels.native_fft_conv import tensorflow_form

    kernel = library.load()[0]
    handlers = {tensorflow_form.FORWARD: kernel.xla_forward}
    assert xla.register(tensorflow_form.XLA, handlers) is None
    other = {tensorflow_form.FORWARD: kernel.xla_backward}
    assert "Duplicate" in xla.register(tensorflow_form.XLA, other)
    assert "takes no handlers" in xla.register(kernel.path, handlers)
    assert "takes no handlers" in xla.register(tmp_path / "none.so", handlers)
    monkeypatch.setattr(xla, "MAJOR", 1)
    assert "written for version 1" in xla.register(tensorflow_form.XLA, handlers)
