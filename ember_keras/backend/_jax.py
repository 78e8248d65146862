"""What `keras.ops` lacks, on jax."""

import contextlib
import math
import os
import re

import jax
import keras

from ember_keras.backend import _common, _recomputing


def to_numpy(x):
    """Return the values of a tensor, variable or array as a numpy array."""
    return keras.ops.convert_to_numpy(_common.tensor_of(x))


def is_backend_tensor(x):
    """Return True for a tensor of the running library."""
    return isinstance(x, jax.Array)


def is_tracing(x):
    """Return True where the values of `x` cannot be read now."""
    return _common.is_symbolic(x) or isinstance(_common.tensor_of(x), jax.core.Tracer)


def value_and_grad(fn):
    """Return a function of the same arguments that gives ``(value, gradients)``.

    Args:
        fn: function of one or more tensors that returns a scalar.

    Returns:
        A function. Its gradients are a tuple with one entry an argument: a tensor for a floating
        point argument (zeros where `fn` does not depend on it), None for any other.
    """

    def both(*arrays):
        tensors, positions = _common.split(arrays)

        def pure(values):
            full = list(tensors)
            for position, value in zip(positions, values, strict=True):
                full[position] = value
            return _common.scalar(fn(*full)), []

        value, _, gradients = _differentiate(pure, [tensors[at] for at in positions])
        return value, _common.spread(gradients, positions, len(tensors))

    return both


def value_and_grad_variables(fn, variables):
    """Return ``(value, gradients)`` of the scalar ``fn()``, a list with one entry a variable."""
    return _common.variables_through(_differentiate, fn, variables)


def compile(fn, donate=()):
    """Return `fn` compiled by ``jax.jit``.

    `fn` must be pure: a Keras variable that it reads is fixed at the value of the first call.
    The tensors of the arguments at the positions `donate` are gone after a call: the results may
    lie where they lay, so that of a large state only what changes is written.
    """
    return jax.jit(fn, donate_argnums=donate)


def no_gradients():
    """Return a context that does nothing: jax records no gradient unless it is asked for."""
    return contextlib.nullcontext()


def from_dlpack(x):
    """Return a tensor that shares the memory of `x`, an object with ``__dlpack__``."""
    return jax.dlpack.from_dlpack(x)


def to_dlpack(x):
    """Return an object with ``__dlpack__`` and ``__dlpack_device__`` for the tensor `x`."""
    return _common.tensor_of(x)


def device_kind(x=None):
    """Return the kind of device that the tensor `x` is on, or would be where it is traced."""
    device = getattr(x, "device", None)
    if not isinstance(device, jax.Device):
        device = jax.config.jax_default_device or jax.devices()[0]
    if isinstance(device, str):
        device = jax.devices(device)[0]
    if device.platform == "gpu":  # jax's word for the cards of all makers
        return "cuda" if "cuda" in device.client.platform_version else "rocm"
    return device.platform


def devices():
    """Return the devices of this process."""
    return [f"{device.platform}:{device.id}" for device in jax.devices()]


def _differentiate(fn, values):
    (value, others), gradients = jax.value_and_grad(fn, has_aux=True)(values)
    return value, others, gradients


def recompute(layer, call, x, **options):
    """Return ``call(x, **options)``, which runs again in the backward pass.

    Args:
        layer: `keras.layers.Layer`, built: the one that holds all variables that `call` uses.
        call: function of a tensor and the options, nests of tensors and plain values.
        x: tensor.
        **options: what else it takes.
    """
    return _recomputing.run(_checkpoint, layer, call, x, options)


def _checkpoint(pure, tensors, count, made):
    spread = any(getattr(jax.typeof(tensor), "vma", None) for tensor in tensors)
    if device_kind() != "cpu" or spread:
        return jax.checkpoint(pure)(*tensors)
    return _checkpoint_in_a_branch(pure)(*tensors)


def _checkpoint_in_a_branch(pure):
    """As `jax.checkpoint`, which saves little on a processor: XLA merges the two runs there.

    It does not look into a branch, and does not see that this one is always taken.
    """

    def floating(x):
        return jax.numpy.issubdtype(x.dtype, jax.numpy.floating)

    def backward(inputs, upstream):
        places = [at for at, x in enumerate(inputs) if floating(x)]

        def again(inputs, given):
            def part(*leaves):
                full = list(inputs)
                for at, leaf in zip(places, leaves, strict=True):
                    full[at] = leaf
                return [x for x in pure(*full) if floating(x)]

            return jax.vjp(part, *(inputs[at] for at in places))[1](given)

        def never(inputs, given):
            return tuple(jax.numpy.zeros_like(inputs[at]) for at in places)

        taken = jax.lax.optimization_barrier(jax.numpy.bool_(True))
        given = [x for x in upstream if floating(x)]
        return _common.spread(jax.lax.cond(taken, again, never, inputs, given), places, len(inputs))

    function = jax.custom_vjp(pure)
    function.defvjp(lambda *inputs: (pure(*inputs), inputs), backward)
    return function


def trace(fn, *specs):
    """Return what ``fn(*specs)`` gives, as a nest of `KerasTensor`; nothing is computed.

    Args:
        fn: function of nests of tensors, whose results are tensors.
        *specs: nests of `KerasTensor`.
    """
    return _common.shapes_of(jax.eval_shape(fn, *_structs(specs)))


def writable(shape, dtype):
    """Return an array of numpy to write into, and a function that makes a tensor of it.

    The tensor may be the same memory: write nothing after it is made.

    Args:
        shape: tuple of int.
        dtype: str, a dtype of Keras.
    """
    array = _common.aligned(shape, dtype)
    return array, lambda: jax.device_put(array)


def tells_memory():
    """Return True: XLA lays memory out when it compiles."""
    return True


def compiled_memory(fn, *specs, donate=()):
    """Return the bytes that ``fn(*specs)`` takes, as the compiler lays them out, or None.

    Args:
        fn: function of nests of tensors.
        *specs: nests of `KerasTensor`. Nothing of their sizes is allocated.
        donate: tuple of int. The positions of arguments whose memory the results may take.

    Returns:
        dict of ``arguments``, ``results``, ``shared`` (results that lie where arguments lay),
        ``temporary``, and ``workspace`` (what runs beside that layout), or None where the compiler
        tells nothing.
    """
    compiled = jax.jit(fn, donate_argnums=donate).lower(*_structs(specs)).compile()
    found = compiled.memory_analysis()
    if found is None:
        return None
    return {
        "arguments": found.argument_size_in_bytes,
        "results": found.output_size_in_bytes,
        "shared": found.alias_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
        "workspace": _workspace(compiled),
    }


_VALUE = re.compile(r"(%[\w.-]+) = [a-z]+(\d+)\[([\d,]*)\]")
_PACKED = re.compile(
    r"%ynn_fusion[\w.-]* = [a-z]+\d+\[\d+,\d+,[\d,]+\]\S* fusion\((%copy[\w.-]*), "
)


def _workspace(compiled):
    """Return the bytes that batched products take on a CPU beside the compiler's layout.

    XLA's library of products (YNNPACK) takes memory of its own, as large as its first operand,
    where that is a copy in another order: so it was measured, an allocation a product. As many are
    under way at once as there are threads: one a core, and the caller's. Attention has the most of
    them where it has the most else; single products come where other memory is free again.
    """
    if device_kind() != "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = compiled.as_text()
    sizes = {
        name: math.prod(int(size) for size in shape.split(",") if size) * int(bits) // 8
        for name, bits, shape in _VALUE.findall(text)
    }
    return (cores + 1) * max((sizes.get(name, 0) for name in _PACKED.findall(text)), default=0)


def _structs(specs):
    return keras.tree.map_structure(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), list(specs))
