"""`keras.ops.pad` without the named operation that it makes on every call."""

import keras
from keras.src import backend


def pad(x, pad_width, constant_values=0):
    """Return `x` with a constant before and after it along each axis.

    `keras.ops.pad` numbers each of its calls, even of concrete tensors. `torch.compile` sees the
    number: it breaks the graph inside a gradient, and compiles again on every call elsewhere.

    Args:
        x: tensor.
        pad_width: a pair of int for each axis, the numbers of positions before and after.
        constant_values: number, what stands there.
    """
    if isinstance(x, keras.KerasTensor):
        return keras.ops.pad(x, pad_width, constant_values=constant_values)
    pad_width = tuple((before, after) for before, after in pad_width)
    return backend.numpy.pad(x, pad_width, mode="constant", constant_values=constant_values)
