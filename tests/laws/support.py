"""Running what the laws compare."""

import keras
import numpy as np
from keras import tree

import ember_keras as ek

# The laws ask for many shapes of each layer, and jax compiles each operation of each shape that
# runs eagerly. Whole calls, compiled without optimising them, are twenty times quicker to get. That
# eager calls and optimised, compiled ones agree is law 8, which uses none of this.
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_OPTIMIZED = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


def optimized(function):
    """`function` compiled as users have it, whatever the tests' own settings make of the rest."""
    if ek.backend.name() != "jax":
        return ek.backend.compile(function)
    import jax

    return jax.jit(function, compiler_options=_OPTIMIZED)


def numpy_of(nest):
    """The same nest with numpy arrays for tensors."""
    return tree.map_structure(ek.backend.to_numpy, nest)


def call(layer, x, return_state=False, **tensors):
    """A call as a user writes it; under jax, compiled once a shape."""

    def plain(x, tensors):
        return layer(x, return_state=True, **tensors) if return_state else layer(x, **tensors)

    return _compiled(layer, ("call", return_state), plain)(x, tensors)


def step(layer, x_t, state, **tensors):
    """One position; under jax, compiled once a shape."""

    def plain(x_t, state, tensors):
        return layer.step(x_t, state, **tensors)

    return _compiled(layer, "step", plain)(x_t, state, tensors)


def _compiled(layer, key, function):
    if ek.backend.name() != "jax" or not layer.built:
        return function
    known = layer.__dict__.setdefault("_compiled_by_the_laws", {})
    if key not in known:
        import jax

        def pure(weights, *arguments):
            with keras.StatelessScope(list(zip(layer.variables, weights, strict=True))):
                return function(*arguments)

        known[key] = jax.jit(pure, compiler_options=_QUICK)
    return lambda *arguments: known[key]([v.value for v in layer.variables], *arguments)


def gradients(layer, x, weights, **tensors):
    """The gradients of `sum(layer(x) * weights)`: a list for the weights, and that of `x`, which
    is None for tokens."""

    def scalar(x):
        return keras.ops.sum(layer(x, **tensors) * weights)

    x, weights = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(weights)
    if ek.backend.name() != "jax":
        variables = layer.trainable_weights
        _, found = ek.backend.value_and_grad_variables(lambda: scalar(x), variables)
        return found, ek.backend.value_and_grad(scalar)(x)[1][0]
    import jax

    def of_values(values, x):
        with keras.StatelessScope(list(zip(layer.trainable_variables, values, strict=True))):
            return scalar(x)

    wanted = (0,) if "int" in str(x.dtype) else (0, 1)
    both = jax.jit(jax.grad(of_values, wanted), compiler_options=_QUICK)
    found = both([v.value for v in layer.trainable_variables], x)
    return found if len(wanted) == 2 else (*found, None)


def run(layer, x, **options):
    """The output of a call without a state, in numpy."""
    return ek.backend.to_numpy(call(layer, x, **options))


def run_chunks(layer, x, sizes, max_length=None, **options):
    """Runs `x` in chunks of `sizes` from an initial state; the outputs in numpy, and the last
    state."""
    state = layer.initial_state(len(x), max_length)
    outputs, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        here = {key: value[:, part] for key, value in options.items()}
        y, state = call(layer, x[:, part], state=state, return_state=True, **here)
        outputs.append(ek.backend.to_numpy(y))
        start += size
    return outputs, state


def run_steps(layer, x, state):
    """Runs `x` position by position from a state; the outputs in numpy, and the last state."""
    outputs = []
    for t in range(x.shape[1]):
        y, state = step(layer, x[:, t], state)
        outputs.append(ek.backend.to_numpy(y))
    return outputs, state


def at_real(y, mask):
    """The outputs at real positions, row after row."""
    return np.concatenate([row[real] for row, real in zip(y, mask, strict=True)])
