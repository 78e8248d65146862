"""Which products of arrays a function makes, whatever layers make them."""

import contextlib
import math

from keras.src import backend

NAMES = ("matmul", "einsum", "dot", "tensordot")


@contextlib.contextmanager
def watch_products(seen):
    """Calls ``seen(flops, operands, result)`` for each product that runs meanwhile.

    `keras.ops` looks its functions up in the module of the backend, so that every layer is seen, of
    Keras too. A sum of products counts two operations a pair. For one thread at a time.

    Args:
        seen: function of an int, a list of tensors, and a tensor.
    """
    module = backend.numpy
    originals = {name: getattr(module, name) for name in NAMES}
    inside = []

    def watched(name):
        def product(*args, **kwargs):
            if inside:
                return originals[name](*args, **kwargs)
            inside.append(name)
            try:
                result = originals[name](*args, **kwargs)
            finally:
                inside.pop()
            operands = [x for x in (*args, *kwargs.values()) if hasattr(x, "shape")]
            seen(_flops(name, args, kwargs, operands, result), operands, result)
            return result

        return product

    for name in NAMES:
        setattr(module, name, watched(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


def _flops(name, args, kwargs, operands, result):
    size = math.prod(result.shape)
    if name == "einsum":
        subscripts = args[0] if args else kwargs["subscripts"]
        contracted = _contracted(subscripts, [tuple(x.shape) for x in operands])
        return size * (2 * contracted if contracted > 1 else len(operands) - 1)
    if name == "tensordot":
        both = math.prod(math.prod(x.shape) for x in operands)
        return 2 * math.isqrt(both * size)  # sqrt(M K x K N x M N) = M K N
    return 2 * size * int(operands[0].shape[-1] if len(operands[0].shape) else 1)


def _contracted(subscripts, shapes):
    """The number of terms of each sum that an einsum makes."""
    given, _, out = subscripts.replace(" ", "").partition("->")
    sizes = {}
    for letters, shape in zip(given.split(","), shapes, strict=True):
        before, _, after = letters.partition("...")
        sizes.update(zip(before, shape[: len(before)], strict=True))
        sizes.update(zip(after, shape[len(shape) - len(after) :], strict=True))
    return math.prod(size for letter, size in sizes.items() if letter not in out)
