"""Mends of `keras_mlx.src.ops.core`: control flow, slices and gradients under a trace."""

import contextlib
import operator
from functools import partial

import mlx.core as mx
import numpy as np
from keras.src.backend.common.stateless_scope import get_stateless_scope


def _values(indices):
    """Return `indices` as a list of Python integers, or None while a transformation traces them."""
    if isinstance(indices, mx.array):
        indices = [indices] if indices.ndim == 0 else [indices[at] for at in range(len(indices))]
    try:
        return [int(at.item()) if hasattr(at, "item") else operator.index(at) for at in indices]
    except ValueError:
        return None


def _starts(module, starts, limits):
    """Return traced `starts` as one int32 array, held inside `limits` as every backend does."""
    if isinstance(starts, (list, tuple)):
        starts = mx.stack([module.convert_to_tensor(at, "int32").reshape(()) for at in starts])
    else:
        starts = module.convert_to_tensor(starts, "int32")
    return mx.clip(starts, 0, mx.array(limits, dtype=mx.int32))


def explicit_float64(module):
    """A numpy float64 array asked for as float64 went through float32 and lost half its digits."""
    stock = module.convert_to_tensor

    def convert_to_tensor(x, dtype=None, sparse=None, ragged=None):
        if (
            isinstance(x, np.ndarray)
            and x.dtype == np.float64
            and dtype is not None
            and module.to_mlx_dtype(dtype) == mx.float64
        ):
            return mx.array(x, dtype=mx.float64)
        return stock(x, dtype=dtype, sparse=sparse, ragged=ragged)

    module.convert_to_tensor = convert_to_tensor


def computed_nan(module):
    """A NaN constant in a compiled function is written as `nan` into C++ that does not compile."""
    stock = module.convert_to_tensor

    def convert_to_tensor(x, dtype=None, sparse=None, ragged=None):
        if isinstance(x, float) and x != x:
            nan = mx.sqrt(mx.array(-1.0))
            return nan if dtype is None else nan.astype(module.to_mlx_dtype(dtype))
        return stock(x, dtype=dtype, sparse=sparse, ragged=ragged)

    module.convert_to_tensor = convert_to_tensor


def traced_slice(module):
    """`slice` read its start index with `item`, which fails while `mx.compile` traces it."""
    stock = module.slice

    def slice(inputs, start_indices, shape):
        if _values(start_indices) is not None:
            return stock(inputs, start_indices, shape)
        inputs = module.convert_to_tensor(inputs)
        lengths = _values(shape)
        if lengths is None or -1 in lengths:
            raise ValueError(
                f"slice received the shape {shape} with a traced start index; expected lengths "
                "known before the computation. Give every length as a Python integer."
            )
        limits = [size - length for size, length in zip(inputs.shape, lengths, strict=True)]
        starts = _starts(module, start_indices, limits)
        return mx.slice(inputs, starts, tuple(range(inputs.ndim)), tuple(lengths))

    module.slice = slice


def traced_slice_update(module):
    """`slice_update` read its start index with `item`, which fails under `mx.compile`."""
    stock = module.slice_update

    def slice_update(inputs, start_indices, updates):
        if _values(start_indices) is not None:
            return stock(inputs, start_indices, updates)
        inputs = module.convert_to_tensor(inputs)
        updates = module.convert_to_tensor(updates).astype(inputs.dtype)
        limits = [size - part for size, part in zip(inputs.shape, updates.shape, strict=True)]
        starts = _starts(module, start_indices, limits)
        return mx.slice_update(inputs, updates, starts, tuple(range(inputs.ndim)))

    module.slice_update = slice_update


def traced_cond(module):
    """A traced `cond` ran both branches and kept the variables that either had assigned.

    The gradient accumulation of every optimizer hides its update in a branch. A branch that
    returns None also failed.
    """
    stock = module.cond

    def cond(pred, true_fn, false_fn):
        if _values([pred]) is not None:
            return stock(pred, true_fn, false_fn)
        return _select(module, [pred], [true_fn, false_fn])

    module.cond = cond


def traced_switch(module):
    """`switch` read its index with `tolist`, which fails under `mx.compile`: select instead."""
    stock = module.switch

    def switch(index, branches, *operands):
        if _values([index]) is not None:
            return stock(index, branches, *operands)
        index = mx.clip(module.convert_to_tensor(index, "int32"), 0, len(branches) - 1)
        operands = [module.convert_to_tensor(operand) for operand in operands]
        conditions = [index == at for at in range(len(branches) - 1)]
        return _select(module, conditions, [partial(branch, *operands) for branch in branches])

    module.switch = switch


def _select(module, conditions, branches):
    """Run every branch and keep, of its results and of the variables it assigns, the one chosen.

    Args:
        conditions: list of traced booleans; the first that holds chooses its branch.
        branches: list of functions of no arguments, one more than `conditions`.
    """
    scope = get_stateless_scope()
    before = dict(scope.state_mapping) if scope else {}
    assigned, results = {}, []
    for branch in branches:
        with _recorded(scope) as variables:
            outputs = branch()
        after = {key: scope.state_mapping[key] for key in variables}
        if scope:
            scope.state_mapping = dict(before)
        assigned |= variables
        results.append((outputs, after))
    chosen, updates = results[-1]
    for condition, (outputs, others) in zip(conditions[::-1], results[-2::-1], strict=True):
        choose = partial(_where, condition)
        chosen = module.tree.map_structure(choose, outputs, chosen)
        merged = {}
        for key, variable in assigned.items():
            old = before[key] if key in before else variable._value
            merged[key] = _where(condition, others.get(key, old), updates.get(key, old))
        updates = merged
    for key, value in updates.items():
        scope.add_update((assigned[key], value))
    return chosen


def _where(condition, one, other):
    return None if one is None and other is None else mx.where(condition, one, other)


@contextlib.contextmanager
def _recorded(scope):
    """Record in a dict, id -> variable, what is assigned in `scope`."""
    variables = {}
    if scope is None:
        yield variables
        return
    stock = scope.add_update

    def add_update(update):
        variables[id(update[0])] = update[0]
        stock(update)

    scope.add_update = add_update
    try:
        yield variables
    finally:
        if "add_update" in vars(scope):
            del scope.add_update


def traced_while_loop(module):
    """A traced condition of `while_loop` ended in an error of mlx that names no cause."""
    stock = module.while_loop

    def while_loop(cond, body, loop_vars, maximum_iterations=None):
        def decided(*values):
            answer = cond(*values)
            if isinstance(answer, mx.array) and _values([answer.astype(mx.int32)]) is None:
                raise ValueError(
                    "while_loop received a condition that depends on traced values; expected one "
                    "that is known, because mlx compiles no data-dependent loop. Use scan or "
                    "fori_loop, or compile the model with run_eagerly=True or jit_compile=False."
                )
            return answer

        return stock(decided, body, loop_vars, maximum_iterations=maximum_iterations)

    module.while_loop = while_loop


def tensor_bounds(module):
    """`fori_loop` passed tensor bounds to `range`, which takes no mlx array."""
    stock = module.fori_loop

    def fori_loop(lower, upper, body_fun, init_val):
        bounds = _values([lower, upper])
        if bounds is None:
            raise ValueError(
                "fori_loop received a traced bound; expected integers known before the "
                "computation, because mlx compiles no loop of unknown length. Loop to a known "
                "maximum and keep the old value with where once the bound is passed."
            )
        return stock(*bounds, body_fun, init_val)

    module.fori_loop = fori_loop


def custom_gradient(module):
    """`custom_gradient` ran the forward pass only: the user's gradient was dropped."""
    tree, variable_type = module.tree, module.Variable

    class CustomGradient:
        """Calls a function with its own gradient.

        Args:
            f: function of tensors that returns ``(outputs, gradient_function)``.
        """

        def __init__(self, f):
            self.fun = f

        def __call__(self, *args, **kwargs):
            args = [arg.value if isinstance(arg, variable_type) else arg for arg in args]
            places = [at for at, arg in enumerate(args) if isinstance(arg, mx.array)]
            structure = None

            def run(arrays):
                full = list(args)
                for at, array in zip(places, arrays, strict=True):
                    full[at] = array
                return self.fun(*full, **kwargs)

            @mx.custom_function
            def forward(*arrays):
                nonlocal structure
                structure, _ = run(arrays)
                return tuple(tree.flatten(structure))

            @forward.vjp
            def backward(primals, cotangents, outputs):
                arrays = primals if isinstance(primals, (list, tuple)) else (primals,)
                _, gradient = run(arrays)
                found = tree.flatten(gradient(*cotangents))
                if len(found) == len(args):
                    found = [found[at] for at in places]
                return tuple(
                    part.astype(array.dtype) for part, array in zip(found, arrays, strict=True)
                )

            outputs = forward(*[args[at] for at in places])
            return tree.pack_sequence_as(structure, list(outputs))

    module.custom_gradient = CustomGradient


def remat_keeps_gradients(module):
    """`remat` lost the gradient of every weight it captured, and crashed on keyword arguments.

    `mx.checkpoint` differentiates with respect to positional arrays only, while Keras captures
    the weights of the layer. The function runs as it is instead: right gradients, no memory saved.
    """

    def remat(f):
        return f

    module.remat = remat
