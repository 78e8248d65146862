"""Products of vectors and matrices (array API chapter "Linear algebra functions")."""

from keras import ops

from ember_keras.ops.tensor.creation import as_backend_tensor
from ember_keras.ops.tensor.data_types import isdtype
from ember_keras.ops.tensor.nests import wrap


@wrap
def matmul(x1, x2, /):
    """The matrix product, over the last dimension of `x1` and the second last of `x2`.

    Args:
        x1: Tensor of shape `(..., M, K)` or `(K,)`.
        x2: Tensor of shape `(..., K, N)` or `(K,)`.

    Returns:
        A tensor of shape `(..., M, N)`, without the dimension of a vector.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.matmul(ek.ops.ones((2, 3)), ek.ops.ones((3,)))
    EmberTensor([3., 3.], dtype=float32, device='cpu:0')
    """
    return ops.matmul(x1, x2)


@wrap
def matrix_transpose(x, /):
    """The transposed matrices, shape `(..., M, N) -> (..., N, M)`."""
    return ops.swapaxes(x, -1, -2)


@wrap
def tensordot(x1, x2, /, *, axes=2):
    """The sum of products over some axes.

    Args:
        x1: Tensor of any shape.
        x2: Tensor of any shape.
        axes: How many last axes of `x1` meet as many first ones of `x2`, or a pair of sequences of
            axes, for `x1` and for `x2`.

    Returns:
        A tensor with the other axes of `x1`, then those of `x2`.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.tensordot(ek.ops.ones((2, 3)), ek.ops.ones((4, 3)), axes=((1,), (1,))).shape
    (2, 4)
    """
    axes = axes if isinstance(axes, int) else [list(side) for side in axes]
    return ops.tensordot(x1, x2, axes=axes)


@wrap
def vecdot(x1, x2, /, *, axis=-1):
    """The dot product of vectors along an axis, `x1` conjugated where it is complex.

    Args:
        x1: Tensor of any shape.
        x2: Tensor of a shape that broadcasts with `x1`, with the same size along `axis`.
        axis: Axis of the vectors, counted from the end (negative).

    Returns:
        A tensor of the broadcast shape without that axis.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.vecdot(ek.ops.ones((5, 3)), ek.ops.ones((3,))).shape
    (5,)
    """
    x1, x2 = as_backend_tensor(x1), as_backend_tensor(x2)
    if x1.shape[axis] != x2.shape[axis]:
        raise ValueError(
            f"Received tensors of shapes {tuple(x1.shape)} and {tuple(x2.shape)} for axis {axis}. "
            "Expected the same size along it. Choose another `axis`."
        )
    if isdtype(x1.dtype, "complex floating"):
        x1 = ops.conj(x1)
    return ops.sum(ops.multiply(x1, x2), axis=axis)


@wrap
def einsum(subscripts, *operands):
    """The sum of products by Einstein's convention (not part of the array API).

    Args:
        subscripts: Letters of each operand's dimensions and of the result, such as `'btd,dk->btk'`.
        operands: One tensor for each group of letters.

    Returns:
        A tensor with the dimensions named after the arrow.

    Example:

    >>> import ember_keras as ek
    >>> ek.ops.einsum("btd,dk->btk", ek.ops.ones((2, 5, 3)), ek.ops.ones((3, 4))).shape
    (2, 5, 4)
    """
    return ops.einsum(subscripts, *operands)
