"""The time loop of `nonlinear_scan` on every backend: what compiles, and what is kept of it.

A step ``(inputs, state, weights) -> (y, state)`` holds no tensor, so that steps which are equal
share what was compiled of one of them, where the cell is `pure`.
"""

import dataclasses
import functools

from keras import tree

from ember_keras import backend
from ember_keras.ops.kernels import loops

KEPT = 2**27
"""Numbers of an inside that torch keeps for the gradient: half a GiB of float32."""


def pure(cell):
    """Return whether equal cells compute the same: nothing is hidden in a closure or an object."""
    if dataclasses.is_dataclass(cell) and not isinstance(cell, type):
        return cell.__dataclass_params__.frozen
    return hasattr(cell, "__code__") and cell.__closure__ is None


def recomputes(shape, inside):
    """Return whether a large inside of a cell is computed again for the gradient.

    A compiled loop is faster so. torch's is slower, and does it where the inside takes much memory.

    Args:
        shape: of the inputs, ``(B, T, ...)``.
        inside: int, the numbers that the gradient needs of a position of a row.
    """
    return backend.name() != "torch" or (shape[0] or 1) * shape[1] * inside > KEPT


def run(step, state, xs, weights, *, recompute=False):
    """Return ``(ys, state)`` of the loop ``y, state = step(x, state, weights)``.

    Args:
        step: function of ``(x, state, weights)``, hashable, with the attribute `cell`.
        state: nest of tensors.
        xs: nest of tensors with the same known first length.
        weights: nest of tensors.
        recompute: bool. Keep the states alone for the gradient.
    """
    make = _FORMS[backend.name()]
    if backend.name() not in _COMPILED or not pure(step.cell):
        return make(step, recompute)(state, xs, weights)
    return _kept(step, recompute)(state, xs, weights)


@functools.lru_cache(maxsize=128)
def _kept(step, recompute):
    return _FORMS[backend.name()](step, recompute)


def _scan(step):
    def loop(state, xs, weights):
        return loops.scan(lambda s, x: _swapped(step(x, s, weights)), state, xs)

    return lambda *nests: _swapped(loop(*nests))


def _swapped(pair):
    first, second = pair
    return second, first


def _numpy(step, recompute):
    return _scan(step)


def _torch(step, recompute):
    if not recompute:
        return _scan(step)
    import torch.utils.checkpoint

    return _scan(functools.partial(torch.utils.checkpoint.checkpoint, step, use_reentrant=False))


def _jax(step, recompute):
    import jax

    return jax.jit(_scan(jax.checkpoint(step) if recompute else step))


def _tensorflow(step, recompute):
    import tensorflow as tf

    loop = _scan(_recomputed_by_tensorflow(step) if recompute else step)
    made = {}

    def one(*nests):
        if tf.inside_function():
            return loop(*nests)
        # One function a shape: tensorflow warns of one that is traced for many.
        kinds = tuple((tuple(leaf.shape), leaf.dtype) for leaf in tree.flatten(nests))
        if kinds not in made:
            made[kinds] = tf.function(loop)
        return made[kinds](*nests)

    return one


def _recomputed_by_tensorflow(step):
    import tensorflow as tf

    def recomputed(*nests):
        flat = tree.flatten(nests)
        structure = []

        def forward(*leaves):
            leaves = [tf.cast(x, was.dtype) for x, was in zip(leaves, flat, strict=True)]
            result = step(*tree.pack_sequence_as(nests, leaves))
            structure[:] = [result]
            return tuple(tree.flatten(result))

        # tensorflow has no gradient, not even zeros, for a flag that goes through it.
        given = [tf.cast(x, "float32") if x.dtype == tf.bool else x for x in flat]
        leaves = tf.recompute_grad(forward)(*given)
        return tree.pack_sequence_as(structure[0], leaves)

    return recomputed


def _mlx(step, recompute):
    import mlx.core as mx

    if recompute:

        def apart(*nests):
            y, state = step(*nests)
            # Where an output is two of the results, mlx would lose one of its two cotangents.
            return tree.map_structure(lambda leaf: leaf + 0, y), state

        made = mx.checkpoint(apart)
    else:
        made = mx.compile(lambda *nests: step(*nests)) if pure(step.cell) else step
    return functools.partial(_in_blocks_of_mlx, _scan(made))


def _in_blocks_of_mlx(loop, state, xs, weights):
    from ember_keras.ops.kernels import mlx_loop

    return mlx_loop.run(loop, state, xs, weights)


_COMPILED = ("jax", "tensorflow", "mlx")
_FORMS = {"numpy": _numpy, "torch": _torch, "jax": _jax, "tensorflow": _tensorflow, "mlx": _mlx}
