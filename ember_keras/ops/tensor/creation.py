"""Tensors out of numbers, lists and other libraries (array API chapter "Creation functions").

These functions give EmberTensors. Only the `*_like` functions follow their argument: a backend
tensor in, a backend tensor out. Without a dtype, floats are Keras's `floatx` (`float32`) and
integers `int32`.
"""

import keras
import numpy as np
from keras import ops

from ember_keras import backend
from ember_keras.ops.tensor.data_types import dtype_of
from ember_keras.ops.tensor.ember_tensor import EmberTensor, check_dtype, copied, may_share
from ember_keras.ops.tensor.libraries import library_of
from ember_keras.ops.tensor.nests import contains, unwrap, wrap


def _checked(dtype):
    """A dtype as the string that Keras takes, `None` for none."""
    if dtype is None:
        return None
    dtype = dtype_of(dtype)
    check_dtype(dtype)
    return str(dtype)


def _on(tensor, device):
    return tensor if device is None else tensor.to_device(device)


def as_backend_tensor(x):
    """`x` as a backend tensor; an EmberTensor's own, a Keras symbol as it is."""
    x = x.value if isinstance(x, EmberTensor) else x
    return x if isinstance(x, keras.KerasTensor) else ops.convert_to_tensor(x)


def asarray(obj, /, *, dtype=None, device=None, copy=None):
    """An EmberTensor of numbers, nested lists, or a tensor of any library.

    Args:
        obj: Python number, nest of lists, EmberTensor, backend tensor, `keras.Variable`, numpy
            array, or tensor of torch, jax, tensorflow or mlx. One that requires a gradient or is
            traced is taken only from the running backend, where the gradient is kept.
        dtype: Dtype of the result; by default that of `obj` where the backend has it.
        device: Name of the device, for example 'cpu:0'.
        copy: `None` shares memory where possible, `True` always copies, `False` refuses to copy.

    Returns:
        An EmberTensor of the shape of `obj`.

    Example:

    >>> asarray([[1, 2], [3, 4]], dtype="float32")
    EmberTensor([[1., 2.],
                 [3., 4.]], dtype=float32, device='cpu:0')
    """
    dtype = _checked(dtype)
    if contains(obj) and not isinstance(obj, EmberTensor):
        obj = ops.convert_to_tensor(_stacked(unwrap(obj)))
    name = None if isinstance(obj, (EmberTensor, keras.Variable)) else library_of(obj)
    if isinstance(obj, (EmberTensor, keras.Variable)) or name == backend.name():
        tensor, before = EmberTensor(obj), obj
    elif name is not None:
        tensor, before = EmberTensor.from_(obj), obj
    else:
        if hasattr(obj, "__array__") or hasattr(obj, "__dlpack__"):
            obj = np.asarray(obj) if hasattr(obj, "__array__") else np.from_dlpack(obj)
            return asarray(obj, dtype=dtype, device=device, copy=copy)
        tensor, before = EmberTensor(ops.convert_to_tensor(obj, dtype=dtype)), None
    result = _on(tensor if dtype is None else tensor.astype(dtype), device)
    if copy is False and not _shares(result, before):
        raise ValueError(
            f"Received copy=False for a value of type {type(obj).__name__} that the "
            f"{backend.name()} backend can only take as a copy. Expected copy=None or "
            "True. Leave `copy` out."
        )
    if copy and before is not None and _shares(result, before):
        result = EmberTensor(copied(result.value))
    return result


def _stacked(nest):
    """Nested lists with backend tensors in them, as one backend tensor."""
    if isinstance(nest, (list, tuple)):
        return ops.stack([_stacked(item) for item in nest])
    return ops.convert_to_tensor(nest)


def _shares(tensor, before):
    """Whether an EmberTensor may lie on the memory of what it was made from."""
    value = tensor.value
    before = before.value if isinstance(before, (EmberTensor, keras.Variable)) else before
    if before is None:
        return False
    return value is before or may_share(value, before)


def from_dlpack(x, /, *, device=None, copy=None):
    """An EmberTensor of any object with `__dlpack__`.

    Args:
        x: Tensor of any library that follows the DLPack protocol.
        device: Name of the device of the result; by default that of `x`.
        copy: As for `asarray`.

    Returns:
        An EmberTensor of the shape and dtype of `x`.
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError(
            f"Received a value of type {type(x).__name__}. Expected an object with `__dlpack__`. "
            "Use `ember_keras.ops.asarray`."
        )
    return asarray(x, device=device, copy=copy)


def _filled(function, shape, dtype, device):
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return _on(EmberTensor(function(shape, dtype=_checked(dtype))), device)


def zeros(shape, *, dtype=None, device=None):
    """Zeros.

    Args:
        shape: Integer or tuple of integers.
        dtype: Dtype, by default Keras's `floatx`.
        device: Name of the device.

    Returns:
        An EmberTensor of the given shape.

    Example:

    >>> zeros((2,), dtype="int32")
    EmberTensor([0, 0], dtype=int32, device='cpu:0')
    """
    return _filled(ops.zeros, shape, dtype, device)


def ones(shape, *, dtype=None, device=None):
    """Ones. Arguments and result as for `zeros`."""
    return _filled(ops.ones, shape, dtype, device)


def empty(shape, *, dtype=None, device=None):
    """Values that are not set: the backend may leave what is there. Arguments as for `zeros`."""
    return _filled(ops.empty, shape, dtype, device)


def full(shape, fill_value, *, dtype=None, device=None):
    """One value everywhere.

    Args:
        shape: Integer or tuple of integers.
        fill_value: Python scalar.
        dtype: Dtype, by default that of the kind of `fill_value`.
        device: Name of the device.

    Returns:
        An EmberTensor of the given shape.

    Example:

    >>> full((2,), 7)
    EmberTensor([7, 7], dtype=int32, device='cpu:0')
    """
    if dtype is None:
        dtype = keras.backend.result_type(type(fill_value))
    return _filled(lambda s, dtype: ops.full(s, fill_value, dtype=dtype), shape, dtype, device)


def _like(function, x, dtype, device):
    dtype = _checked(dtype) or keras.backend.standardize_dtype(x.dtype)
    result = function(x, dtype=dtype)
    return result if device is None else EmberTensor(result).to_device(device).value


@wrap
def zeros_like(x, /, *, dtype=None, device=None):
    """Zeros of the shape of `x` and, without a `dtype`, of its dtype."""
    return _like(ops.zeros_like, x, dtype, device)


@wrap
def ones_like(x, /, *, dtype=None, device=None):
    """Ones of the shape of `x` and, without a `dtype`, of its dtype."""
    return _like(ops.ones_like, x, dtype, device)


@wrap
def empty_like(x, /, *, dtype=None, device=None):
    """Values that are not set, of the shape of `x` and, without a `dtype`, of its dtype."""
    return _like(ops.empty_like, x, dtype, device)


@wrap
def full_like(x, /, fill_value, *, dtype=None, device=None):
    """One value everywhere, of the shape of `x` and, without a `dtype`, of its dtype."""
    return _like(lambda x, dtype: ops.full_like(x, fill_value, dtype=dtype), x, dtype, device)


def arange(start, /, stop=None, step=1, *, dtype=None, device=None):
    """Evenly spaced values from `start` up to, and without, `stop`.

    Args:
        start: First value; the end where `stop` is `None`, and then the first value is 0.
        stop: End, not included.
        step: Distance of two values.
        dtype: Dtype, by default an integer one where all numbers are integers.
        device: Name of the device.

    Returns:
        An EmberTensor of shape `(ceil((stop - start) / step),)`.

    Example:

    >>> arange(1, 7, 2)
    EmberTensor([1, 3, 5], dtype=int32, device='cpu:0')
    """
    if dtype is None:
        floating = any(isinstance(item, float) for item in (start, stop, step))
        dtype = keras.backend.floatx() if floating else "int32"
    # Computed on the host in full precision: backends round the steps in their own ways.
    stops = (start,) if stop is None else (start, stop)
    host = np.arange(*stops, step=step) if stop is not None else np.arange(start, step=step)
    return _on(EmberTensor(ops.convert_to_tensor(host, dtype=_checked(dtype))), device)


def linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True):
    """`num` evenly spaced values from `start` to `stop`.

    Args:
        start: First value, a Python scalar.
        stop: Last value, or the end where `endpoint` is False.
        num: How many.
        dtype: Floating dtype, by default Keras's `floatx`.
        device: Name of the device.
        endpoint: Whether `stop` is the last value.

    Returns:
        An EmberTensor of shape `(num,)`.

    Example:

    >>> linspace(0, 1, 5)
    EmberTensor([0.  , 0.25, 0.5 , 0.75, 1.  ], dtype=float32, device='cpu:0')
    """
    host = np.linspace(start, stop, num, endpoint=endpoint)
    dtype = _checked(dtype) or keras.backend.floatx()
    return _on(EmberTensor(ops.convert_to_tensor(host, dtype=dtype)), device)


def eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None):
    """Ones on a diagonal, zeros elsewhere.

    Args:
        n_rows: Number of rows.
        n_cols: Number of columns, by default that of rows.
        k: Which diagonal: 0 the main one, positive above, negative below.
        dtype: Dtype, by default Keras's `floatx`.
        device: Name of the device.

    Returns:
        An EmberTensor of shape `(n_rows, n_cols)`.

    Example:

    >>> eye(2, 3, k=1)
    EmberTensor([[0., 1., 0.],
                 [0., 0., 1.]], dtype=float32, device='cpu:0')
    """
    dtype = _checked(dtype) or keras.backend.floatx()
    host = np.eye(n_rows, n_cols, k=k, dtype=bool)
    return _on(EmberTensor(ops.cast(ops.convert_to_tensor(host), dtype)), device)


@wrap
def tril(x, /, *, k=0):
    """The lower triangles, zeros above the `k`-th diagonal, shape `(..., M, N)`."""
    return ops.tril(x, k)


@wrap
def triu(x, /, *, k=0):
    """The upper triangles, zeros below the `k`-th diagonal, shape `(..., M, N)`."""
    return ops.triu(x, k)


@wrap
def meshgrid(*arrays, indexing="xy"):
    """Coordinate tensors of a grid.

    Args:
        arrays: Tensors of shape `(N_i,)`.
        indexing: 'xy' (the first two axes swapped) or 'ij'.

    Returns:
        A list with a tensor of the grid's shape for each argument.
    """
    return list(ops.meshgrid(*arrays, indexing=indexing))
