"""Order and places (array API chapters "Searching functions" and "Sorting functions")."""

import keras
from keras import ops

from ember_keras.ops.tensor.creation import as_backend_tensor
from ember_keras.ops.tensor.data_types import isdtype
from ember_keras.ops.tensor.nests import wrap


@wrap
def argmax(x, /, *, axis=None, keepdims=False):
    """The place of the largest value, the first of equal ones.

    Args:
        x: Tensor of any shape and real dtype.
        axis: Axis to search; `None` searches the flattened tensor.
        keepdims: Whether to keep the searched dimension with size 1.

    Returns:
        An integer tensor of the shape of `x` without the axis.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.argmax(ek.ops.asarray([1.0, 3.0, 2.0]))
    EmberTensor(1, dtype=int32, device='cpu:0')
    """
    return ops.argmax(x, axis=axis, keepdims=keepdims)


@wrap
def argmin(x, /, *, axis=None, keepdims=False):
    """The place of the smallest value, the first of equal ones. Arguments as for `argmax`."""
    return ops.argmin(x, axis=axis, keepdims=keepdims)


def _reversible(x):
    """Values whose rising order is the falling order of `x`."""
    if isdtype(x.dtype, ("bool", "integral")):
        return ops.bitwise_invert(x) if not isdtype(x.dtype, "bool") else ops.logical_not(x)
    return ops.negative(x)


@wrap
def argsort(x, /, *, axis=-1, descending=False, stable=True):
    """The places of the values in order.

    Args:
        x: Tensor of at least one dimension and real dtype.
        axis: Axis to sort along.
        descending: Whether the largest comes first.
        stable: Whether equal values keep their order; they always do where the backend sorts so.

    Returns:
        An integer tensor of the shape of `x`.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.argsort(ek.ops.asarray([3.0, 1.0, 2.0]), descending=True)
    EmberTensor([0, 2, 1], dtype=int32, device='cpu:0')
    """
    x = as_backend_tensor(x)
    return ops.argsort(_reversible(x) if descending else x, axis=axis)


@wrap
def sort(x, /, *, axis=-1, descending=False, stable=True):
    """The values in order. Arguments as for `argsort`; the result has the dtype of `x`."""
    x = ops.sort(x, axis=axis)
    return ops.flip(x, axis=axis) if descending else x


@wrap
def nonzero(x, /):
    """The places of the elements that are not zero: one integer tensor for each dimension.

    The length depends on the values, so that it is refused where they are traced by a compiler.
    """
    return tuple(ops.nonzero(x))


@wrap
def searchsorted(x1, x2, /, *, side="left"):
    """Where each value would go in a sorted tensor.

    Args:
        x1: Sorted tensor of shape `(N,)`.
        x2: Tensor of any shape, the values.
        side: Whether to go before ('left') or after ('right') equal values.

    Returns:
        An integer tensor of the shape of `x2`.
    """
    return ops.searchsorted(x1, x2, side=side)


@wrap
def where(condition, x1, x2, /):
    """The elements of `x1` where the condition holds, and of `x2` elsewhere.

    Args:
        condition: Boolean tensor.
        x1: Tensor or scalar.
        x2: Tensor or scalar.

    Returns:
        A tensor of the broadcast shape and promoted dtype.

    Example:

    >>> import ember_keras as ek
    >>> x = ek.ops.asarray([-1.0, 2.0])
    >>> ek.ops.where(x > 0, x, 0.0)
    EmberTensor([0., 2.], dtype=float32, device='cpu:0')
    """
    return keras.ops.where(condition, x1, x2)
