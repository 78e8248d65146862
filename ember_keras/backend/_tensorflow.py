"""What `keras.ops` lacks, on tensorflow."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from ember_keras.backend import _common, _recomputing


def to_numpy(x):
    """Return the values of a tensor, variable or array as a numpy array."""
    x = _common.tensor_of(x)
    return x.numpy() if isinstance(x, tf.Tensor) else np.asarray(x)


def is_backend_tensor(x):
    """Return True for a tensor of the running library."""
    return tf.is_tensor(x)


def is_tracing(x):
    """Return True where the values of `x` cannot be read now."""
    return _common.is_symbolic(x) or not tf.executing_eagerly() or tf.is_symbolic_tensor(x)


def value_and_grad(fn):
    """Return a function of the same arguments that gives ``(value, gradients)``.

    Args:
        fn: function of one or more tensors that returns a scalar.

    Returns:
        A function. Its gradients are a tuple with one entry an argument: a tensor for a floating
        point argument (zeros where `fn` does not depend on it), None for any other.
    """

    def both(*arrays):
        tensors, positions = _common.split(arrays)

        def pure(values):
            full = list(tensors)
            for position, value in zip(positions, values, strict=True):
                full[position] = value
            return _common.scalar(fn(*full)), []

        value, _, gradients = _differentiate(pure, [tensors[at] for at in positions])
        return value, _common.spread(gradients, positions, len(tensors))

    return both


def value_and_grad_variables(fn, variables):
    """Return ``(value, gradients)`` of the scalar ``fn()``, a list with one entry a variable."""
    return _common.variables_through(_differentiate, fn, variables)


def compile(fn, donate=()):
    """Return `fn` compiled by ``tf.function``, without XLA."""
    return tf.function(fn, jit_compile=False)


def no_gradients():
    """Return a context that does nothing: TensorFlow records a gradient under a tape alone."""
    return contextlib.nullcontext()


def from_dlpack(x):
    """Return a tensor that shares the memory of `x`, an object with ``__dlpack__``."""
    return tf.experimental.dlpack.from_dlpack(x.__dlpack__())


def to_dlpack(x):
    """Return an object with ``__dlpack__`` and ``__dlpack_device__`` for the tensor `x`."""
    return tf.convert_to_tensor(_common.tensor_of(x))


def device_kind(x=None):
    """Return the kind of device that the tensor `x` is on, or would be where it is traced."""
    place = x.device if isinstance(x, tf.Tensor) and not tf.is_symbolic_tensor(x) else None
    if place:
        return tf.DeviceSpec.from_string(place).device_type.lower()
    return "gpu" if tf.config.list_logical_devices("GPU") else "cpu"


def devices():
    """Return the devices of this process."""
    found = tf.config.list_logical_devices()
    return [device.name.removeprefix("/device:").lower() for device in found]


def _differentiate(fn, values):
    values = [tf.convert_to_tensor(value) for value in values]
    with tf.GradientTape() as tape:
        for value in values:
            tape.watch(value)
        value, others = fn(values)
    gradients = tape.gradient(value, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return value, others, [tf.convert_to_tensor(gradient) for gradient in gradients]


def recompute(layer, call, x, **options):
    """Return ``call(x, **options)``, which runs again in the backward pass.

    Args:
        layer: `keras.layers.Layer`, built: the one that holds all variables that `call` uses.
        call: function of a tensor and the options, nests of tensors and plain values.
        x: tensor.
        **options: what else it takes.
    """
    return _recomputing.run(_checkpoint, layer, call, x, options)


def _checkpoint(pure, tensors, count, made):
    tensors = list(map(tf.convert_to_tensor, tensors))  # Of a variable, what it holds now.
    floats = [at for at, tensor in enumerate(tensors) if tensor.dtype.is_floating]

    @tf.custom_gradient
    def function(*inputs):
        outputs = pure(*inputs)

        def gradient(*upstream):
            places = [
                at
                for at, output in enumerate(outputs)
                if output.dtype.is_floating and upstream[at] is not None
            ]

            def again(inputs, given):
                leaves = [inputs[at] for at in floats]
                with tf.GradientTape() as tape:
                    tape.watch(leaves)
                    found = pure(*inputs)
                none = tf.UnconnectedGradients.ZERO
                found = [found[at] for at in places]
                found = tape.gradient(found, leaves, given, unconnected_gradients=none)
                return list(map(tf.convert_to_tensor, found))

            if not tf.executing_eagerly():
                # A function of its own begins when the gradient from above has come, and is not
                # merged with the first time.
                apart = {"_noinline": True}
                again = tf.function(again, autograph=False, experimental_attributes=apart)
            found = again(list(inputs), [tf.convert_to_tensor(upstream[at]) for at in places])
            return _common.spread(found, floats, len(inputs))

        return outputs, gradient

    return function(*tensors)


def writable(shape, dtype):
    """Return an array of numpy to write into, and a function that makes a tensor of it.

    The tensor may be the same memory: write nothing after it is made.

    Args:
        shape: tuple of int.
        dtype: str, a dtype of Keras.
    """
    array = _common.aligned(shape, dtype)

    def finish():
        if not keras.backend.is_float_dtype(dtype):
            return tf.convert_to_tensor(array)
        if dtype == "bfloat16":  # The exchange of tensors does not know it.
            return tf.bitcast(from_dlpack(array.view("uint16")), tf.bfloat16)
        return from_dlpack(array)

    return array, finish


def tells_memory():
    """Return False: nothing here tells the memory of a function before it runs."""
    return False


def compiled_memory(fn, *specs, donate=()):
    """Return None: tensorflow tells no memory before a run."""
    return None


def trace(fn, *specs):
    """Return what ``fn(*specs)`` gives, as a nest of `KerasTensor`; nothing is computed."""
    found = []

    def traced(*given):
        found.append(_common.shapes_of(fn(*given)))
        return ()

    shapes = tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), list(specs))
    tf.function(traced, autograph=False).get_concrete_function(*shapes)
    return found[-1]
