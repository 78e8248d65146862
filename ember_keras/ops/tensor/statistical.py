"""Reductions and running sums (array API chapters "Statistical" and "Utility functions").

`axis` is `None` for all, an integer, or a tuple of integers; `keepdims` keeps the reduced
dimensions with size 1. Reductions of small integers and bools are computed in a wider integer.
"""

import keras
from keras import ops

from ember_keras.ops.tensor.creation import as_backend_tensor
from ember_keras.ops.tensor.data_types import dtype_of, isdtype
from ember_keras.ops.tensor.ember_tensor import check_dtype
from ember_keras.ops.tensor.nests import wrap


def _widened(x, dtype):
    """`x` in the dtype that a sum or product of it has."""
    x = as_backend_tensor(x)
    own = dtype_of(x)
    if dtype is not None:
        wide = dtype_of(dtype)
        check_dtype(wide)
    elif own in ("bool", "int8", "int16"):
        wide = "int32"
    elif own in ("uint8", "uint16"):
        # Torch has no wide unsigned integers: a signed one of twice the size holds them all.
        wide = "int32" if keras.backend.result_type("uint8", "uint32") != "uint32" else "uint32"
        wide = wide if _has(wide) else "int32"
    else:
        wide = own
    return x if wide == own else ops.cast(x, str(wide))


def _has(dtype):
    try:
        check_dtype(dtype)
    except ValueError:
        return False
    return True


@wrap
def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    """The sum.

    Args:
        x: Tensor of any shape and numeric or boolean dtype.
        axis: Axis or axes to reduce.
        dtype: Dtype to sum in; by default that of `x`, and at least 32 bits wide for integers.
        keepdims: Whether to keep the reduced dimensions.

    Returns:
        A tensor of the shape of `x` without the reduced dimensions.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.sum(ek.ops.asarray([True, True, False]))
    EmberTensor(2, dtype=int32, device='cpu:0')
    """
    x = _widened(x, dtype)
    return ops.cast(_reduced(ops.sum, x, axis, keepdims), x.dtype)


@wrap
def prod(x, /, *, axis=None, dtype=None, keepdims=False):
    """The product. Arguments and result as for `sum`."""
    x = _widened(x, dtype)
    axes = _axes(axis, len(x.shape))
    kind = x.dtype
    for place in sorted(axes, reverse=True):
        x = ops.prod(x, axis=place, keepdims=keepdims)
    return ops.cast(x, kind)


def _axes(axis, ndim):
    axes = range(ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return [place % ndim for place in axes]


def _reduced(function, x, axis, keepdims):
    """A reduction of Keras; its torch form forgets `keepdims` without an axis."""
    if axis is None and keepdims and len(x.shape):
        axis = tuple(range(len(x.shape)))
    return function(x, axis=axis, keepdims=keepdims)


@wrap
def max(x, /, *, axis=None, keepdims=False):
    """The largest value. Arguments as for `sum`; the dtype stays."""
    return _reduced(ops.max, as_backend_tensor(x), axis, keepdims)


@wrap
def min(x, /, *, axis=None, keepdims=False):
    """The smallest value. Arguments as for `sum`; the dtype stays."""
    return _reduced(ops.min, as_backend_tensor(x), axis, keepdims)


@wrap
def mean(x, /, *, axis=None, keepdims=False):
    """The arithmetic mean, floating. Arguments as for `sum`."""
    return _reduced(ops.mean, as_backend_tensor(x), axis, keepdims)


@wrap
def var(x, /, *, axis=None, correction=0.0, keepdims=False):
    """The variance.

    Args:
        x: Tensor of any shape and real dtype.
        axis: Axis or axes to reduce.
        correction: What is taken off the number of elements: 0 for the variance of a population, 1
            for an unbiased estimate from a sample.
        keepdims: Whether to keep the reduced dimensions.

    Returns:
        A floating tensor of the shape of `x` without the reduced dimensions.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.var(ek.ops.asarray([1.0, 2.0, 3.0]), correction=1)
    EmberTensor(1., dtype=float32, device='cpu:0')
    """
    x = as_backend_tensor(x)
    result = _reduced(ops.var, x, axis, keepdims)
    if correction == 0:
        return result
    count = 1
    for place in _axes(axis, len(x.shape)):
        count *= x.shape[place]
    if count <= correction:
        raise ValueError(
            f"Received correction={correction} for {count} elements. Expected less than the number "
            "of elements. Reduce more axes, or lower the correction."
        )
    return result * (count / (count - correction))


@wrap
def std(x, /, *, axis=None, correction=0.0, keepdims=False):
    """The standard deviation, the root of `var`. Arguments as for `var`."""
    return ops.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def _running(function, start, x, axis, dtype, include_initial):
    x = _widened(x, dtype)
    if axis is None:
        if len(x.shape) != 1:
            raise ValueError(
                f"Received axis=None for a tensor of shape {tuple(x.shape)}. Expected an axis "
                "where there is more than one dimension. Pass `axis`."
            )
        axis = 0
    result = ops.cast(function(x, axis=axis), x.dtype)
    if include_initial:
        shape = list(x.shape)
        shape[axis] = 1
        result = ops.concatenate([ops.full(shape, start, dtype=x.dtype), result], axis=axis)
    return result


@wrap
def cumulative_sum(x, /, *, axis=None, dtype=None, include_initial=False):
    """The running sum.

    Args:
        x: Tensor of any shape.
        axis: Axis to run along; may be left out for one dimension.
        dtype: As for `sum`.
        include_initial: Whether a 0 comes first, which makes the axis one longer.

    Returns:
        A tensor of the shape of `x`.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.cumulative_sum(ek.ops.asarray([1, 2, 3]), include_initial=True)
    EmberTensor([0, 1, 3, 6], dtype=int32, device='cpu:0')
    """
    return _running(ops.cumsum, 0, x, axis, dtype, include_initial)


@wrap
def cumulative_prod(x, /, *, axis=None, dtype=None, include_initial=False):
    """The running product, from 1. Arguments and result as for `cumulative_sum`."""
    return _running(ops.cumprod, 1, x, axis, dtype, include_initial)


@wrap
def all(x, /, *, axis=None, keepdims=False):
    """Whether every element is true. Arguments as for `sum`; the result is boolean."""
    return _reduced(ops.all, _truth(x), axis, keepdims)


@wrap
def any(x, /, *, axis=None, keepdims=False):
    """Whether some element is true. Arguments as for `sum`; the result is boolean."""
    return _reduced(ops.any, _truth(x), axis, keepdims)


def _truth(x):
    x = as_backend_tensor(x)
    return x if isdtype(x.dtype, "bool") else ops.not_equal(x, 0)


@wrap
def count_nonzero(x, /, *, axis=None, keepdims=False):
    """How many elements are not zero. Arguments as for `sum`; the result is an integer."""
    counts = ops.cast(_truth(x), "int32")
    return _reduced(ops.sum, counts, axis, keepdims)


@wrap
def diff(x, /, *, axis=-1, n=1):
    """The differences of neighbours along an axis, taken `n` times; the axis gets `n` shorter."""
    return ops.diff(x, n=n, axis=axis)
