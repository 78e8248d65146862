"""What Keras's variables hold."""

from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.backend.common.variables import AutocastScope


def has_value(variable):
    """Return whether a Keras variable can be read here.

    While the `fit` of jax and mlx runs, variables are empty, but for those that the function that
    is traced was given.

    Args:
        variable: `keras.Variable`.
    """
    if in_stateless_scope() and get_stateless_scope().get_current_value(variable) is not None:
        return True
    return variable._value is not None


def as_called(layer):
    """Return a context in which the variables of a layer are read as in a call of it.

    Args:
        layer: `keras.layers.Layer`.
    """
    return AutocastScope(layer.compute_dtype if layer.autocast else None)


def scale_start(variable, factor):
    """Make a variable start `factor` times as large, whether it is drawn already or not."""
    if variable._value is not None:
        variable.assign(variable.value * factor)
        return
    draw = variable._initializer

    def scaled(shape, dtype=None):
        return draw(shape, dtype=dtype) * factor

    variable._initializer = scaled
