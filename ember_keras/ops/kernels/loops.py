"""Loops and branches that behave alike on every backend.

`scan` has outputs of any shape, and holds one step at a time.
Keras's own asks, under tensorflow, that what is stacked has the shape and dtype of the carry. Under
mlx it leaves the order of the steps open, and mlx may then hold the intermediates of all at once.
"""

from keras import ops, tree

from ember_keras import backend


def scan(function, init, xs):
    """Return ``(carry, ys)`` of ``carry, y = function(carry, x)`` over the first axis of `xs`.

    Args:
        function: function of ``(carry, x)`` that returns ``(carry, y)``.
        init: tensor or tuple of tensors.
        xs: tensor or tuple of tensors, each with the same known first length.

    Returns:
        The last carry, and the nest of `y` stacked along a new first axis.
    """
    form = {"tensorflow": _tensorflow, "mlx": _mlx}.get(backend.name(), ops.scan)
    return form(function, init, xs)


def _mlx(function, init, xs):
    import mlx.core as mx

    carry, steps = init, []
    for at in range(int(tree.flatten(xs)[0].shape[0])):
        leaves = [x[at] for x in tree.flatten(xs)]
        if steps:
            leaves = mx.depends(leaves, tree.flatten((steps[-1], carry)))
        carry, y = function(carry, tree.pack_sequence_as(xs, leaves))
        steps.append(y)
    return carry, tree.map_structure(lambda *ys: mx.stack(ys), *steps)


def _tensorflow(function, init, xs):
    import tensorflow as tf

    count = int(tree.flatten(xs)[0].shape[0])
    carry, first = function(init, tree.map_structure(lambda x: x[0], xs))
    arrays = [
        tf.TensorArray(y.dtype, count, element_shape=y.shape).write(0, y)
        for y in tree.flatten(first)
    ]

    def body(at, carry, arrays):
        carry, ys = function(carry, tree.map_structure(lambda x: x[at], xs))
        arrays = [array.write(at, y) for array, y in zip(arrays, tree.flatten(ys), strict=True)]
        return at + 1, carry, arrays

    if count > 1:
        _, carry, arrays = tf.while_loop(
            lambda at, *_: at < count, body, (tf.constant(1), carry, arrays), parallel_iterations=1
        )
    return carry, tree.pack_sequence_as(first, [array.stack() for array in arrays])


def can_switch(value):
    """Return whether `switch` on `value` runs one branch alone: under mlx not in compiled code."""
    return backend.name() != "mlx" or not backend.is_tracing(value)


def switch(index, branches, operands):
    """Return ``branches[index](*operands)``, running that branch alone.

    Args:
        index: int32 tensor ``()`` within bounds.
        branches: tuple of functions with results alike in structure, shapes and dtypes.
        operands: tuple of tensors.
    """
    if len(branches) == 1:
        return branches[0](*operands)
    if backend.is_tracing(index):
        return ops.switch(index, branches, *operands)
    return branches[int(backend.to_numpy(index))](*operands)
