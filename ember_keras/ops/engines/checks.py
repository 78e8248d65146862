"""Checks of engine arguments: received, expected, how to mend it."""

import keras
import numpy as np

from ember_keras.backend import require_float64

FLOATS = ("float16", "bfloat16", "float32", "float64")
"""The dtypes that engines take; float64 where the backend computes in it."""


def floating(name, x, shape):
    """Return `x` as a tensor, refused unless it is real floating point with the rank of `shape`.

    Args:
        name: str, the argument's name in errors.
        x: tensor or array.
        shape: str, the expected shape in letters, such as ``"(B, T, D)"``.
    """
    if x is None or isinstance(x, str):
        raise TypeError(f"Received {name} = {x!r}; expected a tensor or an array, {shape}.")
    x = _tensor(name, x)
    rank = shape.count(",") + (0 if shape.endswith(",)") else 1)
    if len(x.shape) != rank:
        raise ValueError(
            f"Received {name} of shape {tuple(x.shape)}; expected {shape}. "
            f"Reshape {name} to {rank} dimensions."
        )
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype not in FLOATS:
        raise TypeError(
            f"Received {name} of dtype {dtype}; expected one of {', '.join(FLOATS)}. "
            f"Cast {name} first, for example with keras.ops.cast({name}, 'float32')."
        )
    if dtype == "float64":
        require_float64(f"Received {name} of dtype float64")
    return x


def _tensor(name, x):
    """Return `x` as a tensor, refused where it has no numbers that a tensor can have."""
    if isinstance(x, np.ndarray):
        if x.dtype.names:
            raise TypeError(
                f"Received {name} with the fields {', '.join(x.dtype.names)}; expected an array of "
                f"numbers. Pass one of its fields, such as {name}[{x.dtype.names[0]!r}]."
            )
        # Not every backend reads another machine's order of bytes, or steps within a number.
        if not x.dtype.isnative or any(step % x.itemsize for step in x.strides):
            x = np.ascontiguousarray(x, x.dtype.newbyteorder("="))
        if keras.ops.is_tensor(x):
            return x  # Keras's numpy would copy it.
    tensor = keras.ops.convert_to_tensor(x)
    if getattr(x, "is_meta", False) and not tensor.is_meta:
        raise ValueError(
            f"Received {name} on the device meta, which holds shapes and no numbers; expected a "
            f"tensor on {tensor.device}. Pass numbers, or call under keras.device('meta')."
        )
    return tensor


def static(name, x, axis):
    """Return the length of `axis`, refused where it is unknown or zero."""
    size = x.shape[axis]
    if size is None:
        raise ValueError(
            f"Received {name} of shape {tuple(x.shape)}, whose axis {axis} has no known length; "
            "expected a fixed length. Pad or batch the input to a fixed number of positions; in a "
            "Keras model on tensorflow, give fit and predict ek.callbacks.CompileEachLength()."
        )
    if size == 0:
        raise ValueError(
            f"Received {name} of shape {tuple(x.shape)}; expected at least one element along "
            f"axis {axis}. Skip empty sequences before calling."
        )
    return int(size)


def same(name, received, expected, of):
    """Raise `ValueError` where the size `received` of `name` is known and is not `expected`."""
    if received is not None and expected is not None and received != expected:
        raise ValueError(
            f"Received {name} = {received}; expected {expected}, as in {of}. "
            "Make the two inputs agree."
        )


def rows(name, x, batch, length, dtype):
    """Return a ``(B, T)`` argument such as a mask as a tensor of `dtype`, or None for None."""
    if x is None:
        return None
    x = _tensor(name, x)
    known = len(x.shape) == 2 and x.shape[1] == length
    if not known or (None not in (batch, x.shape[0]) and x.shape[0] != batch):
        raise ValueError(
            f"Received {name} of shape {tuple(x.shape)}; expected ({batch}, {length}), one "
            "value for each row and position."
        )
    return cast(x, dtype)


def cast(x, dtype):
    """Return `x` in a dtype: itself where it has that dtype, which Keras's numpy would copy."""
    dtype = keras.backend.standardize_dtype(dtype)
    return x if keras.backend.standardize_dtype(x.dtype) == dtype else keras.ops.cast(x, dtype)


def wide(x):
    """Return `x` in the dtype that engines compute in: float32, or float64 for float64."""
    kind = keras.backend.standardize_dtype(x.dtype)
    return x if kind in ("float32", "float64") else keras.ops.cast(x, "float32")


def state(x, shape, letters):
    """Return a recurrent state as a tensor in the dtype that engines compute in.

    Args:
        x: tensor or array: the state that was passed.
        shape: tuple of int or None, the expected shape; None is not checked.
        letters: str, the same in letters, such as ``"(B, H, K, V)"``.
    """
    x = _tensor("initial_state", x)
    agrees = len(x.shape) == len(shape) and all(
        None in (have, want) or have == want for have, want in zip(x.shape, shape, strict=True)
    )
    if not agrees:
        raise ValueError(
            f"Received an initial_state of shape {tuple(x.shape)}; expected {letters} = "
            f"{tuple(shape)}. Pass the state that an earlier call returned, or None for zeros."
        )
    return wide(x)
