"""Python's operators for EmberTensor, each one a function of `keras.ops`."""

import keras
import numpy as np
from keras import ops

_SCALARS = (bool, int, float, complex, np.generic, np.ndarray, keras.Variable, keras.KerasTensor)


def _bitwise(function, logical):
    """A bitwise function that takes bools, which not every backend's own does."""

    def either(*operands):
        if all(_is_bool(item) for item in operands):
            return logical(*operands)
        return function(*operands)

    return either


def _is_bool(x):
    return isinstance(x, bool) or "bool" in str(getattr(x, "dtype", ""))


invert = _bitwise(ops.bitwise_invert, ops.logical_not)
bitwise_and = _bitwise(ops.bitwise_and, ops.logical_and)
bitwise_or = _bitwise(ops.bitwise_or, ops.logical_or)
bitwise_xor = _bitwise(ops.bitwise_xor, ops.logical_xor)


def _forward(function):
    def operator(self, other):
        other = operand(other)
        if other is NotImplemented:
            return NotImplemented
        return self._like(function(self.value, other))

    return operator


def _reflected(function):
    def operator(self, other):
        other = operand(other)
        if other is NotImplemented:
            return NotImplemented
        return self._like(function(other, self.value))

    return operator


def _unary(function):
    def operator(self):
        return self._like(function(self.value))

    return operator


def operand(x):
    """What an operator hands to `keras.ops` for `x`, or `NotImplemented`."""
    if isinstance(x, Operators):
        return x.value
    if isinstance(x, _SCALARS) or keras.ops.is_tensor(x):
        return x
    return NotImplemented


class Operators:
    """The operators. A class beside this one gives `value` and `_like(result)`.

    There are no in-place forms: `x += y` binds `x` to the new tensor `x + y`, and other names for
    the old tensor keep the old one.
    """

    __slots__ = ()

    __add__, __radd__ = _forward(ops.add), _reflected(ops.add)
    __sub__, __rsub__ = _forward(ops.subtract), _reflected(ops.subtract)
    __mul__, __rmul__ = _forward(ops.multiply), _reflected(ops.multiply)
    __truediv__, __rtruediv__ = _forward(ops.true_divide), _reflected(ops.true_divide)
    __floordiv__, __rfloordiv__ = _forward(ops.floor_divide), _reflected(ops.floor_divide)
    __mod__, __rmod__ = _forward(ops.mod), _reflected(ops.mod)
    __pow__, __rpow__ = _forward(ops.power), _reflected(ops.power)
    __matmul__, __rmatmul__ = _forward(ops.matmul), _reflected(ops.matmul)
    __and__, __rand__ = _forward(bitwise_and), _reflected(bitwise_and)
    __or__, __ror__ = _forward(bitwise_or), _reflected(bitwise_or)
    __xor__, __rxor__ = _forward(bitwise_xor), _reflected(bitwise_xor)
    __lshift__, __rlshift__ = _forward(ops.left_shift), _reflected(ops.left_shift)
    __rshift__, __rrshift__ = _forward(ops.right_shift), _reflected(ops.right_shift)

    __eq__ = _forward(ops.equal)
    __ne__ = _forward(ops.not_equal)
    __lt__ = _forward(ops.less)
    __le__ = _forward(ops.less_equal)
    __gt__ = _forward(ops.greater)
    __ge__ = _forward(ops.greater_equal)

    __abs__ = _unary(ops.abs)
    __neg__ = _unary(ops.negative)
    __invert__ = _unary(invert)

    # `==` compares elements, so equal tensors could not have equal hashes: use `id(x)` as a key.
    __hash__ = None  # type: ignore[assignment]

    def __pos__(self):
        return self._like(self.value)
