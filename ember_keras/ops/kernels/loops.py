"""Loops and branches that behave alike on every backend.

`scan` has outputs of any shape, and holds one step at a time.
Keras's own asks, under tensorflow, that what is stacked has the shape and dtype of the carry. Under
mlx it leaves the order of the steps open, and mlx may then hold the intermediates of all at once.
"""

import functools

from keras import ops, tree

from ember_keras import backend
from ember_keras.ops.kernels.in_place import by_torch_func


def scan(function, init, xs):
    """Return ``(carry, ys)`` of ``carry, y = function(carry, x)`` over the first axis of `xs`.

    Args:
        function: function of ``(carry, x)`` that returns ``(carry, y)``.
        init: tensor or tuple of tensors.
        xs: tensor or tuple of tensors, each with the same known first length.

    Returns:
        The last carry, and the nest of `y` stacked along a new first axis.
    """
    form = {"tensorflow": _tensorflow, "mlx": _mlx, "torch": _torch}.get(backend.name(), ops.scan)
    return form(function, init, xs)


def _torch(function, init, xs):
    # Keras's own holds a copy of the first carry until the end.
    import torch

    carry, steps, stacked = init, [], None
    together = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or by_torch_func())
    for at, leaves in enumerate(zip(*tree.flatten(xs), strict=True)):
        carry, y = function(carry, tree.pack_sequence_as(xs, list(leaves)))
        if not together:
            steps.append(y)
            continue
        # Small tensors that stay, each between large ones that go, would leave holes in the memory
        # of a processor that no later large one fits in.
        if stacked is None:
            stacked = tree.map_structure(functools.partial(_room, len(tree.flatten(xs)[0])), y)
        for whole, leaf in zip(tree.flatten(stacked), tree.flatten(y), strict=True):
            whole[at] = leaf
    if together:
        return carry, stacked
    return carry, tree.map_structure(lambda *ys: ops.stack(ys), *steps)


def _room(count, leaf):
    return leaf.new_empty((count, *leaf.shape))


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

    leaves = tree.flatten(xs)
    count = int(leaves[0].shape[0])
    # The gradient of x[at] is a tensor as large as x, at every position; an array has one for all.
    given = [
        tf.TensorArray(x.dtype, count, element_shape=x.shape[1:], clear_after_read=False).unstack(x)
        for x in leaves
    ]

    def position(at):
        return tree.pack_sequence_as(xs, [array.read(at) for array in given])

    carry, first = function(init, position(0))
    arrays = [
        tf.TensorArray(y.dtype, count, element_shape=y.shape).write(0, y)
        for y in tree.flatten(first)
    ]

    def body(at, carry, arrays):
        carry, ys = function(carry, position(at))
        arrays = [array.write(at, y) for array, y in zip(arrays, tree.flatten(ys), strict=True)]
        return at + 1, carry, arrays

    if count > 1:
        # XLA keeps what the gradient needs in lists, whose greatest length it must know.
        _, carry, arrays = tf.while_loop(
            lambda at, *_: at < count,
            body,
            (tf.constant(1), carry, arrays),
            parallel_iterations=1,
            maximum_iterations=count - 1,
        )
    return carry, tree.pack_sequence_as(first, [array.stack() for array in arrays])


def turns_a_call():
    """Return of how many turns of a loop, that need nothing else between, one call is worth.

    1 where a call costs little beside a turn, or where a loop is written out turn by turn.
    """
    return {"jax": 16}.get(backend.name(), 1)


def can_switch(value):
    """Return whether `change` by `value` does one change alone: under mlx not in compiled code."""
    return backend.name() != "mlx" or not backend.is_tracing(value)


def change(index, changes, state, *operands):
    """Return `state` where `index` is 0, or ``changes[index - 1](state, *operands)``.

    What is left out costs nothing. Compiled by jax with the state donated (`jax.jit`,
    ``donate_argnums``), tensors that a change leaves as they are are not copied.

    Args:
        index: int32 tensor ``()`` within bounds.
        changes: sequence of functions that return a nest like `state`, in structure, shapes and
            dtypes.
        state: nest of tensors.
        *operands: nests of tensors.
    """
    if not changes:
        return state
    if not backend.is_tracing(index):
        index = int(backend.to_numpy(index))
        return changes[index - 1](state, *operands) if index else state
    form = _changed_in_place if backend.name() == "jax" else _switched
    return form(index, changes, state, operands)


def _switched(index, changes, state, operands):
    return ops.switch(index, (lambda state, *_: state, *changes), state, *operands)


def _changed_in_place(index, changes, state, operands):
    """A loop of one turn or none leaves its state where it is; a branch of XLA copies it."""
    import jax
    from jax.experimental import layout

    def usual(x):  # Else XLA takes the layout that suits a change, and turns every state to it.
        return layout.with_layout_constraint(x, layout.Layout(tuple(range(x.ndim))))

    def turn(carry, made):
        return False, jax.tree.map(usual, made(carry[1], *operands))

    @jax.custom_jvp
    def run(index, state, operands):
        for number, made in enumerate(changes, start=1):
            body = functools.partial(turn, made=made)
            _, state = jax.lax.while_loop(lambda carry: carry[0], body, (index == number, state))
        return state

    @run.defjvp
    def slope(primals, tangents):  # Loops of an unknown number of turns have no gradient.
        index, *given = primals
        return jax.jvp(lambda *nests: _switched(index, changes, *nests), given, tangents[1:])

    return run(index, state, operands)
