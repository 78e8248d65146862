"""The kernel as a custom call of XLA: eager, in `tf.function`, with `jit_compile`."""

import tensorflow as tf

from ember_keras.cuda import grouped, xla
from ember_keras.ops.kernels import row_blocks, tensorflow_calls
from ember_keras.ops.kernels.gradient import with_gradient

ROWS, WEIGHTS = "ember_keras_grouped_rows", "ember_keras_grouped_weights"


def _register():
    kernel, reason = grouped.load()
    if kernel is None:
        return reason
    if tensorflow_calls.XLA is None:
        return "this TensorFlow has no libtensorflow_cc, whose XLA would call it."
    handlers = {ROWS: kernel.xla_rows, WEIGHTS: kernel.xla_weights}
    reason = xla.register(tensorflow_calls.XLA, handlers)
    return reason and f"TensorFlow can't call it: {reason}"


REASON = _register()
"""Why TensorFlow can't call the kernel, in a sentence, or None where it can."""


def run(x, w, offsets):
    """Return ``(M, F)``; see `ember_keras.ops.grouped_matmul`."""

    def forward(x, w, offsets):
        return _rows(x, w, offsets, (x.shape[0], w.shape[2]), 0), ()

    def backward(inputs, _, g):
        g.set_shape((inputs[0].shape[0], inputs[1].shape[2]))  # TensorFlow may have lost it.
        return (*slopes(*inputs, g), None)

    def backward_forward(x, w, offsets, g):
        dx = _rows(g, w, offsets, x.shape, 1)
        like = [tf.TensorSpec(w.shape, w.dtype)]
        numbers = {"transposed": 0, "threads": tensorflow_calls.threads()}
        dw = tensorflow_calls.call(WEIGHTS, (x, g, offsets), like, numbers)[0]
        return (dx, dw), ()

    def backward_backward(inputs, _, cotangents):
        x, w, offsets, g = inputs
        with tf.GradientTape() as tape:
            tape.watch((x, w, g))
            found = row_blocks.gradients(x, w, offsets, g)[:2]
        dx, dw, dg = tape.gradient(found, (x, w, g), cotangents)
        return dx, dw, None, dg

    slopes = with_gradient(backward_forward, backward_backward, saved=(0, 1, 2, 3))
    return with_gradient(forward, backward, saved=(0, 1, 2))(x, w, offsets)


def _rows(x, w, offsets, shape, transposed):
    numbers = {"transposed": transposed, "threads": tensorflow_calls.threads()}
    like = [tf.TensorSpec(shape, x.dtype)]
    return tensorflow_calls.call(ROWS, (x, w, offsets), like, numbers)[0]
