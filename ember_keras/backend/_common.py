"""What the backend modules share: checks, and gradients for Keras variables."""

import math

import keras
import ml_dtypes
import numpy as np
from keras.src.backend.common.stateless_scope import in_stateless_scope


def is_symbolic(x):
    """Return True for a `KerasTensor`, the abstract value of a functional model."""
    return isinstance(x, keras.KerasTensor)


def tensor_of(x):
    """Return the backend tensor of a variable, and anything else as it is."""
    return x.value if isinstance(x, keras.Variable) else x


def split(arrays):
    """Return tensors of `arrays` and the positions of those that take a gradient.

    Floating point inputs take one, integers and booleans do not, complex ones are refused: the
    libraries disagree on the sign of a complex gradient.
    """
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    kinds = [keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors]
    for position, kind in enumerate(kinds):
        if kind.startswith("complex"):
            raise TypeError(
                f"Received {kind} for argument {position}; expected a real dtype, because the "
                "backends disagree on complex gradients. Pass real and imaginary part as two "
                "arguments."
            )
    return tensors, [at for at, kind in enumerate(kinds) if "float" in kind]


def scalar(value):
    """Return `value`, refused where it is not a scalar."""
    shape = tuple(getattr(value, "shape", ()))
    if shape != ():
        raise ValueError(
            f"Received a function that returns shape {shape}; expected a scalar. Reduce it, for "
            "example with keras.ops.sum."
        )
    return value


def spread(gradients, positions, length):
    """Return `length` gradients: those given at `positions`, None elsewhere."""
    result = [None] * length
    for position, gradient in zip(positions, gradients, strict=True):
        result[position] = gradient
    return tuple(result)


def aligned(shape, dtype):
    """Return an array of numpy, not yet filled, at an address that a library can take over.

    jax and tensorflow copy an array that does not begin at a multiple of 64 bytes.
    """
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + 64, "uint8")
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


class RecordingScope(keras.StatelessScope):
    """A `keras.StatelessScope` that also remembers which variables were assigned."""

    def __init__(self, state_mapping, **options):
        super().__init__(state_mapping, **options)
        self.assigned = {}

    def add_update(self, update):
        self.assigned[id(update[0])] = update[0]
        super().add_update(update)


def variables_through(differentiate, fn, variables):
    """Return ``(value, gradients)`` of ``fn()`` with respect to `variables`.

    `variables` are replaced by traced values in a `keras.StatelessScope`; whatever other
    variables `fn` assigns (seeds, statistics) are assigned after it, as in a training step.

    Args:
        differentiate: function of ``(fn, values)`` that returns ``(value, others, gradients)``
            for an `fn` that returns ``(value, others)``.
        fn: function of no arguments that returns a scalar.
        variables: list of `keras.Variable`.
    """
    if in_stateless_scope():
        raise ValueError(
            "value_and_grad_variables was called inside a keras.StatelessScope (a training step, "
            "for example); expected a call outside. Use value_and_grad on the values there."
        )
    variables = list(variables)
    for variable in variables:
        if not isinstance(variable, keras.Variable):
            raise TypeError(
                f"Received {type(variable).__name__} among the variables; expected keras.Variable. "
                "For plain tensors use value_and_grad."
            )
    given = {id(variable) for variable in variables}
    assigned = []

    def pure(values):
        with RecordingScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            value = scalar(fn())
        assigned[:] = [other for key, other in scope.assigned.items() if key not in given]
        return value, [scope.get_current_value(other) for other in assigned]

    value, others, gradients = differentiate(pure, [variable.value for variable in variables])
    for variable, new in zip(assigned, others, strict=True):
        variable.assign(new)
    return value, list(gradients)


def zeros_like_specs(specs):
    """Return a nest of zeros of the shapes and dtypes of a nest of `KerasTensor`."""
    return keras.tree.map_structure(
        lambda spec: keras.ops.zeros(spec.shape, dtype=spec.dtype) if is_symbolic(spec) else spec,
        specs,
    )


def shapes_of(nest):
    """Return the nest of `KerasTensor` with the shapes and dtypes of a nest of tensors."""
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, dtype=keras.backend.standardize_dtype(x.dtype)), nest
    )
