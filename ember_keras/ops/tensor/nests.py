"""EmberTensors in nests: take the backend tensors out, and put results back in.

This is the whole mechanism by which a function that knows only backend tensors takes and returns
EmberTensors: every function of the namespace, and the layers through `call_unwrapped`.
"""

import copy
import functools

import keras

from ember_keras.ops.tensor.ember_tensor import EmberTensor


def contains(nest):
    """True where `nest` (tuples, lists, dicts) has an EmberTensor among its leaves."""
    if isinstance(nest, EmberTensor):
        return True
    if isinstance(nest, (tuple, list)):
        return any(map(contains, nest))
    if isinstance(nest, dict):
        return any(map(contains, nest.values()))
    return False


def _map(function, nest):
    if isinstance(nest, tuple):
        items = [_map(function, item) for item in nest]
        return type(nest)(*items) if hasattr(nest, "_fields") else tuple(items)
    if isinstance(nest, list):
        return [_map(function, item) for item in nest]
    if isinstance(nest, dict):
        result = copy.copy(nest)  # Keeps the kind of dict, for example an OrderedDict.
        for key, item in nest.items():
            result[key] = _map(function, item)
        return result
    return function(nest)


def unwrap(nest):
    """The same nest with the backend tensor in place of each EmberTensor.

    Args:
        nest: Tuples, lists and dicts of anything.

    Returns:
        The nest itself where it holds no EmberTensor, else a new one of the same structure.

    Example:

    >>> import ember_keras as ek
    >>> x = ek.ops.ones((2,))
    >>> unwrap({"x": x, "axis": 0})["x"] is x.value
    True
    """
    if not contains(nest):
        return nest
    return _map(lambda leaf: leaf.value if isinstance(leaf, EmberTensor) else leaf, nest)


def rewrap(nest, like=None):
    """The same nest with an EmberTensor around each backend tensor.

    Args:
        nest: Tuples, lists and dicts of anything.
        like: The nest that the result follows, usually the arguments: where it holds no
            EmberTensor, `nest` is returned as it is. `None` wraps always.

    Returns:
        A nest of the same structure.
    """
    if like is not None and not contains(like):
        return nest
    return _map(_wrapped, nest)


def _wrapped(leaf):
    return EmberTensor(leaf) if keras.ops.is_tensor(leaf) else leaf


def call_unwrapped(function, /, *args, **kwargs):
    """Calls a function of backend tensors: EmberTensor in, EmberTensor out.

    Args:
        function: Any callable of backend tensors, for example a layer's own `__call__`.
        *args: Its arguments, nests that may hold EmberTensors.
        **kwargs: The same, by keyword.

    Returns:
        What `function` returns, wrapped where an argument was.

    Example:

    >>> import ember_keras as ek, keras
    >>> y = call_unwrapped(keras.layers.Dense(3), ek.ops.ones((2, 4)))
    >>> type(y).__name__, y.shape
    ('EmberTensor', (2, 3))
    """
    if not contains(args) and not contains(kwargs):
        return function(*args, **kwargs)
    return rewrap(function(*unwrap(args), **unwrap(kwargs)))


def wrap(function):
    """Decorates a function of backend tensors to take EmberTensors and return them.

    A call without an EmberTensor goes straight through, so backend tensor in is backend tensor out,
    and the symbolic tensors of a functional model work where `function` takes them.

    Args:
        function: Callable of nests of backend tensors, built on `keras.ops`.

    Returns:
        A callable with the same signature and docstring.

    Example:

    >>> import ember_keras as ek, keras
    >>> softmax = wrap(keras.ops.softmax)
    >>> softmax(ek.ops.zeros((2,)))
    EmberTensor([0.5, 0.5], dtype=float32, device='cpu:0')
    """

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return call_unwrapped(function, *args, **kwargs)

    return wrapped
