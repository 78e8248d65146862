"""What `keras.ops` lacks, on mlx."""

import contextlib

import keras
import ml_dtypes
import mlx.core as mx
import numpy as np
from keras.src.backend.mlx.core import to_mlx_dtype

from ember_keras.backend import _common, _recomputing


def to_numpy(x):
    """Return the values of a tensor, variable or array as a numpy array."""
    return keras.ops.convert_to_numpy(_common.tensor_of(x))


def is_backend_tensor(x):
    """Return True for a tensor of the running library."""
    return isinstance(x, mx.array)


def is_tracing(x):
    """Return True where the values of `x` cannot be read now.

    mlx marks no traced array, so an array is asked for its value: this evaluates it.
    """
    if _common.is_symbolic(x):
        return True
    x = _common.tensor_of(x)
    if not isinstance(x, mx.array):
        return False
    try:
        mx.eval(x)
    except ValueError as error:
        if "transformations" in str(error):
            return True
        raise
    return False


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
    """Return `fn` compiled by ``mx.compile``.

    `fn` must be pure: a Keras variable that it reads is fixed at the value of the first call.
    """
    return mx.compile(fn)


def no_gradients():
    """Return a context that does nothing: mlx records no gradient unless it is asked for."""
    return contextlib.nullcontext()


def from_dlpack(x):
    """Return a tensor with the values of `x`, an object with ``__dlpack__``: mlx copies them."""
    return mx.array(np.from_dlpack(x))


def to_dlpack(x):
    """Return an object with ``__dlpack__`` and ``__dlpack_device__`` for the tensor `x`."""
    return _common.tensor_of(x)


def device_kind(x=None):
    """Return the kind of device on which this process computes."""
    return devices()[0].split(":")[0]


def devices():
    """Return the devices of this process."""
    found = [mx.Device(mx.gpu, 0)] if mx.is_available(mx.Device(mx.gpu, 0)) else []
    return [*("gpu:0" for _ in found), "cpu:0"]


def _differentiate(fn, values):
    if not values:
        return (*fn(values), [])
    (value, others), gradients = mx.value_and_grad(fn)(values)
    return value, others, gradients


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
    # mx.checkpoint asks for the gradient of every input, of a seed too.
    floats = [at for at, tensor in enumerate(tensors) if mx.issubdtype(tensor.dtype, mx.floating)]

    @mx.custom_function
    def function(*inputs):
        return pure(*inputs)

    @function.vjp
    def function_vjp(inputs, upstream, outputs):
        full = mx.depends(list(inputs), list(upstream))
        wanted = [at for at, x in enumerate(outputs) if mx.issubdtype(x.dtype, mx.floating)]

        def again(*leaves):
            for at, leaf in zip(floats, leaves, strict=True):
                full[at] = leaf
            found = pure(*full)
            return [found[at] for at in wanted]

        leaves = [full[at] for at in floats]
        found = mx.vjp(again, leaves, [upstream[at] for at in wanted])[1]
        gradients = _common.spread(found, floats, len(inputs))
        return tuple(
            mx.zeros_like(x) if gradient is None else gradient
            for x, gradient in zip(inputs, gradients, strict=True)
        )

    return function(*tensors)


def writable(shape, dtype):
    """Return an array of numpy to write into, and a function that makes a tensor of it.

    The tensor may be the same memory: write nothing after it is made.

    Args:
        shape: tuple of int.
        dtype: str, a dtype of Keras.
    """
    if dtype != "bfloat16":
        held = mx.zeros(tuple(shape), to_mlx_dtype(dtype))
        return np.array(held, copy=False), lambda: held
    held = mx.zeros(tuple(shape), mx.uint16)
    return np.array(held, copy=False).view(ml_dtypes.bfloat16), lambda: held.view(mx.bfloat16)


def tells_memory():
    """Return False: nothing here tells the memory of a function before it runs."""
    return False


def compiled_memory(fn, *specs, donate=()):
    """Return None: mlx tells no memory before a run."""
    return None


def trace(fn, *specs):
    """Return what ``fn(*specs)`` gives, as a nest of `KerasTensor`; mlx evaluates nothing of it."""
    return _common.shapes_of(fn(*_common.zeros_like_specs(list(specs))))
