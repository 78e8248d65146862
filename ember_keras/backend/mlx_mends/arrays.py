"""Mends of `mlx.core.array` itself, for gradients that mlx 0.31 gets wrong without a word."""

import mlx.core as mx

_BOUND = (int, type(None))


def strided_slice(module):
    """The gradient of a slice with a step is wrong in mlx 0.31 where one element is left.

    The gradient of ``x[1::2]`` on three elements comes out as if a longer slice had been taken.
    A slice of one element needs no step, so it is taken without one.
    """
    stock = mx.array.__getitem__
    if getattr(stock, "ember_mended", False):
        return

    def __getitem__(self, index):
        kind = type(index)
        if kind is slice:
            if index.step is not None and self.ndim:
                index = _single(index, self.shape[0])
        elif kind is tuple:
            for part in index:
                if type(part) is slice and part.step is not None:
                    index = _without_steps(index, self.shape)
                    break
        return stock(self, index)

    __getitem__.ember_mended = True
    mx.array.__getitem__ = __getitem__


def complex_power(module):
    """``z ** n`` of a complex array has a wrong gradient in mlx 0.31: take the mended power."""
    stock, reflected = mx.array.__pow__, mx.array.__rpow__
    if getattr(stock, "ember_mended", False):
        return

    def __pow__(self, other):
        if self.dtype == mx.complex64 or (
            isinstance(other, mx.array) and other.dtype == mx.complex64
        ):
            return module.power(self, other)
        return stock(self, other)

    def __rpow__(self, other):
        if self.dtype == mx.complex64:
            return module.power(other, self)
        return reflected(self, other)

    __pow__.ember_mended = True
    mx.array.__pow__ = __pow__
    mx.array.__rpow__ = __rpow__


def take_of_transposed(module):
    """`take` from a transposed array with one row gives its numbers in another order on a CPU.

    mlx 0.31 copies what it takes as it lies in memory, also where that is by columns (mlx#3647).
    An array that lies by rows is not copied.
    """
    stock = module.take

    def take(x, indices, axis=None):
        return stock(mx.contiguous(module.convert_to_tensor(x)), indices, axis=axis)

    module.take = take


def matmul_with_variables(module):
    """``array @ variable`` raised, where ``array * variable`` works."""
    stock = mx.array.__matmul__
    if getattr(stock, "ember_mended", False):
        return

    def __matmul__(self, other):
        if not isinstance(other, mx.array) and hasattr(other, "__mlx_array__"):
            other = other.__mlx_array__()
        return stock(self, other)

    __matmul__.ember_mended = True
    mx.array.__matmul__ = __matmul__


def numpy_protocol(module):
    """An mlx array has no ``__array__``, by which Keras knows what `fit` can take and slice.

    A bfloat16 array keeps hiding it: numpy asks the buffer of mlx first, and that one is wrong.
    """

    def __array__(self):
        if self.dtype == mx.bfloat16:
            raise AttributeError("__array__")

        def to_array(dtype=None, copy=None):
            values = module.convert_to_numpy(self)
            return values if dtype is None else values.astype(dtype, copy=False)

        return to_array

    if not hasattr(mx.array, "__array__"):
        mx.array.__array__ = property(__array__)


def _single(part, size):
    """Return the slice `part` without its step where it leaves one of `size` elements."""
    if (
        type(part) is slice
        and type(part.step) is int
        and part.step not in (0, 1)
        and isinstance(part.start, _BOUND)
        and isinstance(part.stop, _BOUND)
    ):
        places = range(size)[part]
        if len(places) == 1:
            return slice(places[0], places[0] + 1)
    return part


def _without_steps(index, shape):
    """Return the tuple `index` with every slice of one element written without its step."""
    consumed = [_axes(part) for part in index]
    if None in consumed:
        return index
    hidden = len(shape) - sum(consumed)
    result, axis = [], 0
    for part, axes in zip(index, consumed, strict=True):
        if part is Ellipsis:
            axis += hidden
        elif type(part) is slice and axis < len(shape):
            part = _single(part, shape[axis])
        result.append(part)
        axis += axes
    return tuple(result)


def _axes(part):
    """Return how many axes one part of an index takes, or None where that is not known."""
    if part is None or part is Ellipsis:
        return 0
    if isinstance(part, (bool, list)) or "bool" in str(getattr(part, "dtype", "")):
        return None
    return 1
