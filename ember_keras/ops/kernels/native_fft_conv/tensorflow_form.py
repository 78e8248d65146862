"""The kernel as a custom call of XLA: eager, in `tf.function`, with `jit_compile`; without copies.

A batch that is not known when a function is traced is known when it is compiled.
"""

import tensorflow as tf

from ember_keras.cuda import library, xla
from ember_keras.ops.kernels import tensorflow_calls
from ember_keras.ops.kernels.complex_fft import gated_gradients
from ember_keras.ops.kernels.gradient import with_gradient

FORWARD, BACKWARD = "ember_keras_fft_conv", "ember_keras_fft_conv_backward"


def _register():
    kernel, reason = library.load()
    if kernel is None:
        return reason
    if tensorflow_calls.XLA is None:
        return "this TensorFlow has no libtensorflow_cc, whose XLA would call it."
    reason = xla.register(
        tensorflow_calls.XLA, {FORWARD: kernel.xla_forward, BACKWARD: kernel.xla_backward}
    )
    return reason and f"TensorFlow can't call it: {reason}"


REASON = _register()
"""Why TensorFlow can't call the kernel, in a sentence, or None where it can."""


def run(u, k, d, start, length, skip, fft_length, gate_in=None, gate_out=None):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    k = tf.cast(k, tf.float64 if u.dtype == tf.float64 else tf.float32)
    every = (u, k, None if d is None else tf.cast(d, k.dtype), gate_in, gate_out)
    there = [x is not None for x in every]
    given = [x for x in every if x is not None]
    numbers = {"start": start, "skip": skip, "threads": tensorflow_calls.threads()}
    numbers |= dict(zip(("skips", "gates_in", "gates_out"), map(int, there[2:]), strict=True))

    def forward(u, k, *more):
        y = tf.TensorSpec((u.shape[0], length, u.shape[2]), u.dtype)
        return tensorflow_calls.call(FORWARD, (u, k, *more), [y], numbers)[0], ()

    def backward(inputs, _, g):
        u, k, *more = inputs
        g.set_shape((u.shape[0], length, u.shape[2]))  # TensorFlow may have lost it.
        return slopes(u, k, g, *more)

    def backward_forward(u, k, g, *more):
        like = [tf.TensorSpec(x.shape, x.dtype) for x in (u, k, *more)]
        return tuple(tensorflow_calls.call(BACKWARD, (u, k, g, *more), like, numbers)), ()

    def backward_backward(inputs, _, cotangents):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            u, k, g, *more = inputs
            more = iter(more)
            arguments = [u, k, *(next(more) if has else None for has in there[2:])]
            where = {"start": start, "skip": skip, "fft_length": fft_length}
            found = gated_gradients(*arguments, g, **where)
            found = [x for x, has in zip(found, there, strict=True) if has]
        return tape.gradient(found, inputs, cotangents)

    saved = tuple(range(1 + len(given)))
    slopes = with_gradient(backward_forward, backward_backward, saved=saved)
    return with_gradient(forward, backward, saved=saved[:-1])(*given)
