"""Gradients of functions of EmberTensors, alike on every backend that trains."""

import functools

from ember_keras import backend
from ember_keras.ops.tensor.ember_tensor import EmberTensor
from ember_keras.ops.tensor.nests import contains, rewrap, unwrap


def value_and_grad(function):
    """A function that gives the value of `function` and its gradients (not part of the array API).

    Args:
        function: Callable of one or more tensors that returns a scalar. It sees an EmberTensor
            wherever it is given one, and may return either kind.

    Returns:
        A callable of the same arguments that gives `(value, gradients)`, with one gradient for each
        argument: a tensor for a floating one, `None` for any other.

    Example:

    >>> import ember_keras as ek
    >>> gradient = ek.ops.value_and_grad(lambda x: ek.ops.sum(x * x))
    >>> gradient(ek.ops.asarray([1.0, 2.0]))  # doctest: +SKIP
    (EmberTensor(5., ...), (EmberTensor([2., 4.], ...),))
    """

    @functools.wraps(function)
    def both(*tensors):
        wrapped = [contains(tensor) for tensor in tensors]

        def pure(*values):
            pairs = zip(values, wrapped, strict=True)
            return unwrap(function(*(EmberTensor(v) if is_ember else v for v, is_ember in pairs)))

        result = backend.value_and_grad(pure)(*unwrap(tensors))
        return rewrap(result, tensors)

    return both
