"""The C++ convolution in functions of tensorflow."""

import numpy as np
import pytest
from engines.convolutions import arguments, both, gated, gates_of, only, run
from engines.support import error, normal, rng

import ember_keras as ek

pytestmark = only("tensorflow")


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


def test_tensorflow_float64_and_an_empty_batch(monkeypatch):
    u, k, d = arguments((2, 40, 12, 40, 6), "float64")
    for got, expected in both(monkeypatch, lambda: [run(u, k, d), run(u, k, None, False)]):
        assert error(got, expected) < 1e-14
    monkeypatch.setenv("EMBER_KERNELS", "cpu_fft_conv")
    assert tuple(run(u[:0], k, d).shape) == (0, 40, 12)


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


def test_an_error_of_the_kernel_is_one_of_tensorflow():
    import tensorflow as tf

    from ember_keras.ops.kernels.native_fft_conv import tensorflow_form

    u, k, _ = arguments((2, 20, 6, 20, 4))
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not divide the width"):
        tensorflow_form.run(u, k, None, 0, 20, 0, 40)


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
