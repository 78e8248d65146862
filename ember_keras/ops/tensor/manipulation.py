"""Shapes and order of elements (array API chapters "Manipulation" and "Indexing functions").

`slice_update`, `scatter_update` and `stop_gradient` are not part of the array API: an EmberTensor
cannot be changed in place, and these are what to use instead.
"""

import keras
from keras import ops

from ember_keras.ops.tensor.creation import as_backend_tensor
from ember_keras.ops.tensor.data_types import dtype_of
from ember_keras.ops.tensor.ember_tensor import check_dtype, copied, get_item
from ember_keras.ops.tensor.nests import wrap


@wrap
def astype(x, dtype, /, *, copy=True, device=None):
    """The values as another dtype.

    Args:
        x: Tensor of any shape.
        dtype: The new dtype, one that the backend holds exactly.
        copy: Whether the result must not share memory with `x` where the dtype is the same.
        device: `None`: the result is where `x` is. Use `EmberTensor.to_device` to move it.

    Returns:
        A tensor of the shape of `x`.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.astype(ek.ops.asarray([1.7]), "int32")
    EmberTensor([1], dtype=int32, device='cpu:0')
    """
    if device is not None:
        raise ValueError(
            f"Received device={device!r}. Expected None. Move the result with `x.to_device`."
        )
    x, dtype = as_backend_tensor(x), dtype_of(dtype)
    check_dtype(dtype)
    if dtype == dtype_of(x):
        return copied(x) if copy else x
    if dtype == "bool":
        return ops.not_equal(x, 0)
    return ops.cast(x, str(dtype))


@wrap
def broadcast_to(x, /, shape):
    """The tensor repeated to a larger shape, one that its own broadcasts to."""
    return ops.broadcast_to(x, tuple(shape))


@wrap
def broadcast_arrays(*arrays):
    """The tensors repeated to their common shape, as a list."""
    arrays = [as_backend_tensor(item) for item in arrays]
    shape = ()
    for item in arrays:
        shape = _broadcast(shape, tuple(item.shape))
    return [ops.broadcast_to(item, shape) for item in arrays]


def _broadcast(first, second):
    width = max(len(first), len(second))
    first = (1,) * (width - len(first)) + first
    second = (1,) * (width - len(second)) + second
    for a, b in zip(first, second, strict=True):
        if a != b and 1 not in (a, b):
            raise ValueError(
                f"Received shapes {first} and {second}. Expected sizes that are equal or 1 at each "
                "place. Insert dimensions with `ember_keras.ops.expand_dims`."
            )
    return tuple(b if a == 1 else a for a, b in zip(first, second, strict=True))


@wrap
def concat(arrays, /, *, axis=0):
    """The tensors joined along an axis.

    Args:
        arrays: Sequence of tensors, of equal shape apart from `axis`.
        axis: Axis to join along; `None` joins the flattened tensors.

    Returns:
        A tensor of the promoted dtype.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.concat([ek.ops.ones((2, 3)), ek.ops.zeros((1, 3))]).shape
    (3, 3)
    """
    arrays = [as_backend_tensor(item) for item in arrays]
    if axis is None:
        arrays, axis = [ops.reshape(item, (-1,)) for item in arrays], 0
    return ops.concatenate(arrays, axis=axis)


@wrap
def expand_dims(x, /, *, axis=0):
    """The tensor with a dimension of size 1 inserted before `axis`."""
    _check_axis(axis, len(as_backend_tensor(x).shape) + 1, "expand_dims")
    return ops.expand_dims(x, axis)


def _check_axis(axis, ndim, name):
    if not -ndim <= axis < ndim:
        raise IndexError(
            f"Received axis={axis} for `{name}`. Expected {-ndim} <= axis < {ndim}. "
            "Check it against `x.ndim`."
        )


@wrap
def flip(x, /, *, axis=None):
    """The elements in reverse order along an axis, several, or all (`None`)."""
    return ops.flip(x, axis=axis)


@wrap
def moveaxis(x, source, destination, /):
    """The tensor with some axes moved to other places, the others in their order."""
    return ops.moveaxis(x, source, destination)


@wrap
def permute_dims(x, /, axes):
    """The tensor with its dimensions in another order.

    Args:
        x: Tensor of N dimensions.
        axes: The N axes of `x` in the new order.

    Returns:
        A tensor whose dimension `i` is the dimension `axes[i]` of `x`.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.permute_dims(ek.ops.ones((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return ops.transpose(x, list(axes))


@wrap
def repeat(x, repeats, /, *, axis=None):
    """Each element repeated along an axis, or of the flattened tensor (`None`)."""
    return ops.repeat(x, repeats, axis=axis)


@wrap
def reshape(x, /, shape, *, copy=None):
    """The elements in another shape, in the same order.

    Args:
        x: Tensor of any shape.
        shape: The new shape; one size may be -1, and is then inferred.
        copy: `True` always copies. `False` is refused, as not every backend can tell.

    Returns:
        A tensor of the new shape.
    """
    if copy is False:
        raise ValueError(
            "Received copy=False. Expected None or True: a backend may have to copy to reshape. "
            "Leave `copy` out."
        )
    x = ops.reshape(x, (shape,) if isinstance(shape, int) else tuple(shape))
    return copied(x) if copy else x


@wrap
def roll(x, /, shift, *, axis=None):
    """The elements moved on along an axis, those past the end to the start.

    Args:
        x: Tensor of any shape.
        shift: How far, an integer or a tuple beside a tuple of axes.
        axis: Axis or axes; `None` rolls the flattened tensor.

    Returns:
        A tensor of the shape of `x`.
    """
    if not isinstance(axis, tuple):
        return ops.roll(x, shift, axis=axis)
    shifts = shift if isinstance(shift, tuple) else (shift,) * len(axis)
    for distance, place in zip(shifts, axis, strict=True):
        x = ops.roll(x, distance, axis=place)
    return x


@wrap
def squeeze(x, /, axis):
    """The tensor without the given axis or axes, which must have size 1."""
    x = as_backend_tensor(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shape, ndim = tuple(x.shape), len(x.shape)
    for place in axes:
        _check_axis(place, ndim, "squeeze")
        if shape[place] not in (1, None):
            raise ValueError(
                f"Received axis={place} of size {shape[place]} of a tensor of shape {shape}. "
                "Expected an axis of size 1. Index the axis instead."
            )
    return ops.squeeze(x, axis=tuple(sorted(place % ndim for place in axes)))


@wrap
def stack(arrays, /, *, axis=0):
    """The tensors, of equal shape, joined along a new axis."""
    return ops.stack([as_backend_tensor(item) for item in arrays], axis=axis)


@wrap
def tile(x, repetitions, /):
    """The whole tensor repeated along each axis."""
    return ops.tile(x, tuple(repetitions))


@wrap
def unstack(x, /, *, axis=0):
    """The tensors along an axis, as a tuple."""
    return tuple(ops.unstack(x, axis=axis))


@wrap
def take(x, indices, /, *, axis=None):
    """The elements at some places of an axis.

    Args:
        x: Tensor of N dimensions.
        indices: Integer tensor of shape `(M,)`, counted from the end where negative.
        axis: Axis; may be left out for one dimension.

    Returns:
        A tensor with `M` in the place of the axis.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.take(ek.ops.arange(5), ek.ops.asarray([4, 0]))
    EmberTensor([4, 0], dtype=int32, device='cpu:0')
    """
    x = as_backend_tensor(x)
    ndim = len(x.shape)
    if axis is None:
        if ndim != 1:
            raise ValueError(
                f"Received axis=None for a tensor of shape {tuple(x.shape)}. Expected an axis "
                "where there is more than one dimension. Pass `axis`."
            )
        axis = 0
    _check_axis(axis, ndim, "take")
    key = (slice(None),) * (axis % ndim) + (indices,)
    return get_item(x, key)


@wrap
def take_along_axis(x, indices, /, *, axis=-1):
    """For each place of `indices`, the element of `x` there with another index along the axis."""
    return ops.take_along_axis(x, indices, axis=axis)


@wrap
def slice_update(x, start, new, /):
    """The tensor with a block of it replaced.

    Args:
        x: Tensor of N dimensions.
        start: The N indices of the block's first element.
        new: Tensor of N dimensions, the block.

    Returns:
        A tensor of the shape of `x`; `x` stays as it is.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.slice_update(ek.ops.zeros((4,)), (1,), ek.ops.ones((2,)))
    EmberTensor([0., 1., 1., 0.], dtype=float32, device='cpu:0')
    """
    # Under numpy Keras writes into `x` itself.
    return ops.slice_update(ops.copy(x), start, new)


@wrap
def scatter_update(x, indices, new, /):
    """The tensor with single elements or rows replaced.

    Args:
        x: Tensor of N dimensions.
        indices: Integer tensor of shape `(M, K)`: the first K indices of each replacement.
        new: Tensor of shape `(M,)` followed by the last N - K sizes of `x`.

    Returns:
        A tensor of the shape of `x`; `x` stays as it is.
    """
    return ops.scatter_update(ops.copy(x), indices, new)


@wrap
def stop_gradient(x, /):
    """The same values, through which no gradient flows."""
    return keras.ops.stop_gradient(x)
