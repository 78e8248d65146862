"""What `keras.ops` lacks, on numpy."""

import contextlib

import numpy as np

from ember_keras.backend import _common

_NO_GRADIENTS = (
    "{function} was called under the numpy backend; the numpy backend predicts only. "
    "Set KERAS_BACKEND=torch|jax|tensorflow|mlx before Python starts."
)


def to_numpy(x):
    """Return the values of a tensor, variable or array as a numpy array."""
    return np.asarray(_common.tensor_of(x))


def is_backend_tensor(x):
    """Return True for a tensor of the running library."""
    return isinstance(x, (np.ndarray, np.generic))


def is_tracing(x):
    """Return True where the values of `x` cannot be read now."""
    return _common.is_symbolic(x)


def value_and_grad(fn):
    """Raise `ValueError`: numpy has no gradients."""
    raise ValueError(_NO_GRADIENTS.format(function="value_and_grad"))


def value_and_grad_variables(fn, variables):
    """Raise `ValueError`: numpy has no gradients."""
    raise ValueError(_NO_GRADIENTS.format(function="value_and_grad_variables"))


def compile(fn, donate=()):
    """Return `fn` itself: numpy has no compiler."""
    return fn


def no_gradients():
    """Return a context that does nothing: numpy has no gradients."""
    return contextlib.nullcontext()


def from_dlpack(x):
    """Return a tensor that shares the memory of `x`, an object with ``__dlpack__``."""
    return np.from_dlpack(x)


def to_dlpack(x):
    """Return an object with ``__dlpack__`` and ``__dlpack_device__`` for the tensor `x`."""
    return np.asarray(_common.tensor_of(x))


def device_kind(x=None):
    """Return the kind of device on which this process computes."""
    return devices()[0].split(":")[0]


def devices():
    """Return the devices of this process."""
    return ["cpu:0"]


def recompute(layer, call, x, **options):
    """Return ``call(x, **options)``, which runs again in the backward pass: here there is none.

    Args:
        layer: `keras.layers.Layer`, built: the one that holds all variables that `call` uses.
        call: function of a tensor and the options, nests of tensors and plain values.
        x: tensor.
        **options: what else it takes.
    """
    return call(x, **options)


def writable(shape, dtype):
    """Return an array of numpy to write into, and a function that makes a tensor of it.

    The tensor may be the same memory: write nothing after it is made.

    Args:
        shape: tuple of int.
        dtype: str, a dtype of Keras.
    """
    array = _common.aligned(shape, dtype)
    return array, lambda: array


def tells_memory():
    """Return False: nothing here tells the memory of a function before it runs."""
    return False


def compiled_memory(fn, *specs, donate=()):
    """Return None: numpy tells no memory before a run."""
    return None


def trace(fn, *specs):
    """Return what ``fn(*specs)`` gives, as a nest of `KerasTensor`; numpy computes it on zeros."""
    with np.errstate(all="ignore"):
        return _common.shapes_of(fn(*_common.zeros_like_specs(list(specs))))
