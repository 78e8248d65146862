"""The kernel as a custom call of XLA: eager, in `tf.function`, with `jit_compile`."""

import tensorflow as tf

from ember_keras.cuda import experts, xla
from ember_keras.ops.kernels import tensorflow_calls
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.native_experts import plain

FORWARD, BACKWARD = "ember_keras_experts_forward", "ember_keras_experts_backward"


def _register():
    kernel, reason = experts.load()
    if kernel is None:
        return reason
    if tensorflow_calls.XLA is None:
        return "this TensorFlow has no libtensorflow_cc, whose XLA would call it."
    handlers = {FORWARD: kernel.xla_forward, BACKWARD: kernel.xla_backward}
    reason = xla.register(tensorflow_calls.XLA, handlers)
    return reason and f"TensorFlow can't call it: {reason}"


REASON = _register()
"""Why TensorFlow can't call the kernel, in a sentence, or None where it can."""


def run(x, chosen, weights, gate_up, down):
    """Return ``(N, D)``; see `plain.run`."""

    def forward(*inputs):
        x, chosen, _, _, down = inputs
        kept = (x.shape[0], experts.kept_width(chosen.shape[1], down.shape[1]))
        y, kept = _call(FORWARD, inputs, [x.shape, kept])
        return y, (kept,)

    def backward(inputs, known, g):
        g.set_shape(inputs[0].shape)  # TensorFlow may have lost it.
        # A gradient of these gradients makes what was kept anew.
        dx, dweights, dgate_up, ddown = slopes(*inputs, tf.stop_gradient(known[0]), g)
        return dx, None, dweights, dgate_up, ddown

    def backward_forward(*inputs):
        x, _, weights, gate_up, down = inputs[:5]
        like = [each.shape for each in (x, weights, gate_up, down)]
        return tuple(_call(BACKWARD, inputs, like)), ()

    def backward_backward(inputs, _, cotangents):
        x, chosen, weights, gate_up, down, kept, g = inputs
        known = (x, weights, gate_up, down)
        with tf.GradientTape() as outer:
            outer.watch((*known, g))
            with tf.GradientTape() as inner:
                inner.watch(known)
                y = plain.run(x, chosen, weights, gate_up, down)
            found = [tf.convert_to_tensor(each) for each in inner.gradient(y, known, g)]
        dx, *others, dg = outer.gradient(found, (*known, g), cotangents)
        return dx, None, *others, tf.zeros_like(kept), dg

    slopes = with_gradient(backward_forward, backward_backward, saved=tuple(range(7)))
    return with_gradient(forward, backward, saved=tuple(range(5)))(
        x, chosen, weights, gate_up, down
    )


def _call(name, inputs, shapes):
    like = [tf.TensorSpec(shape, inputs[0].dtype) for shape in shapes]
    numbers = {"threads": tensorflow_calls.threads()}
    return tensorflow_calls.call(name, inputs, like, numbers)
