"""The kernel as a custom call of XLA: eager, in `tf.function`, with `jit_compile`; without copies.

TensorFlow's operator XlaCallModule compiles a module of StableHLO, here one that is nothing but the
call. A batch that is not known when a function is traced is known when it is compiled.
"""

import pathlib

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as tf_xla

from ember_keras.cuda import library, xla
from ember_keras.ops.kernels.complex_fft import gated_gradients
from ember_keras.ops.kernels.gradient import with_gradient

FORWARD, BACKWARD = "ember_keras_fft_conv", "ember_keras_fft_conv_backward"

VERSION = 9
"""The version of XlaCallModule whose rules the modules follow."""

_TYPES = {tf.float32: "f32", tf.float64: "f64", tf.float16: "f16", tf.bfloat16: "bf16"}


XLA = next(pathlib.Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"), None)
"""The path of the library that holds TensorFlow's XLA, or None."""


def _register():
    kernel, reason = library.load()
    if kernel is None:
        return reason
    if XLA is None:
        return "this TensorFlow has no libtensorflow_cc, whose XLA would call it."
    reason = xla.register(XLA, {FORWARD: kernel.xla_forward, BACKWARD: kernel.xla_backward})
    return reason and f"TensorFlow can't call it: {reason}"


REASON = _register()
"""Why TensorFlow can't call the kernel, in a sentence, or None where it can."""


def run(u, k, d, start, length, skip, fft_length, gate_in=None, gate_out=None):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    k = tf.cast(k, tf.float64 if u.dtype == tf.float64 else tf.float32)
    every = (u, k, None if d is None else tf.cast(d, k.dtype), gate_in, gate_out)
    there = [x is not None for x in every]
    given = [x for x in every if x is not None]
    numbers = {"start": start, "skip": skip, "threads": _threads()}
    numbers |= dict(zip(("skips", "gates_in", "gates_out"), map(int, there[2:]), strict=True))

    def forward(u, k, *more):
        y = tf.TensorSpec((u.shape[0], length, u.shape[2]), u.dtype)
        return _call(FORWARD, (u, k, *more), [y], numbers)[0], ()

    def backward(inputs, _, g):
        u, k, *more = inputs
        g.set_shape((u.shape[0], length, u.shape[2]))  # TensorFlow may have lost it.
        return slopes(u, k, g, *more)

    def backward_forward(u, k, g, *more):
        like = [tf.TensorSpec(x.shape, x.dtype) for x in (u, k, *more)]
        return tuple(_call(BACKWARD, (u, k, g, *more), like, numbers)), ()

    def backward_backward(inputs, _, cotangents):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            u, k, g, *more = inputs
            more = iter(more)
            arguments = [u, k, *(next(more) if has else None for has in there[2:])]
            where = {"start": start, "skip": skip, "fft_length": fft_length}
            found = gated_gradients(*arguments, g, **where)
            found = [x for x, has in zip(found, there, strict=True) if has]
        return tape.gradient(found, inputs, cotangents)

    saved = tuple(range(1 + len(given)))
    slopes = with_gradient(backward_forward, backward_backward, saved=saved)
    return with_gradient(forward, backward, saved=saved[:-1])(*given)


def _call(name, inputs, like, numbers):
    """Call a handler on tensors, of which u, g and the gates may have an unknown batch."""
    return tf_xla.call_module(
        inputs,
        version=VERSION,
        module=_module(name, inputs, like, numbers),
        Tout=[x.dtype for x in like],
        Sout=[x.shape for x in like],
        platforms=["CPU"],
    )


def _threads():
    return tf.config.threading.get_intra_op_parallelism_threads() or library.cores()


def _module(name, inputs, like, numbers):
    """Return the text of a module that makes one call: results like some tensors, dense.

    The shape of each result is an operand, made from the batch of the first input, which
    TensorFlow puts in for ``?`` before it compiles.
    """
    takes = [f"%x{i}" for i in range(len(inputs))]
    types = [_type(x) for x in inputs]
    lines = [
        f"%n = stablehlo.get_dimension_size %x0, dim = 0 : ({types[0]}) -> tensor<i32>",
        "%batch = stablehlo.reshape %n : (tensor<i32>) -> tensor<1xi32>",
    ]
    for i, x in enumerate(like):
        fixed = list(x.shape)
        shape = f"tensor<{len(fixed)}xi32>"
        if fixed[0] is not None:
            lines.append(f"%s{i} = stablehlo.constant dense<{fixed}> : {shape}")
            continue
        rest = f"tensor<{len(fixed) - 1}xi32>"
        lines += [
            f"%r{i} = stablehlo.constant dense<{fixed[1:]}> : {rest}",
            f"%s{i} = stablehlo.concatenate %batch, %r{i}, dim = 0 "
            f": (tensor<1xi32>, {rest}) -> {shape}",
        ]
    shapes = [f"%s{i}" for i in range(len(like))]
    given = [*types, *(f"tensor<{len(x.shape)}xi32>" for x in like)]
    out = ", ".join(_type(x) for x in like)
    config = ", ".join(f"{key} = {value} : i64" for key, value in numbers.items())
    at = list(range(len(inputs), len(given)))
    layouts = [_layout(x) for x in inputs] + ["dense<0> : tensor<1xindex>"] * len(like)
    lines += [
        f'%y:{len(like)} = "stablehlo.custom_call"({", ".join(takes + shapes)}) {{'
        f'call_target_name = "{name}", api_version = 4 : i32, backend_config = {{{config}}}, '
        f"operand_layouts = [{', '.join(layouts)}], "
        f"result_layouts = [{', '.join(map(_layout, like))}], "
        f"indices_of_shape_operands = dense<{at}> : tensor<{len(at)}xi64>}} "
        f": ({', '.join(given)}) -> ({out})",
        f"return {', '.join(f'%y#{i}' for i in range(len(like)))} : {out}",
    ]
    arguments = ", ".join(f"{x}: {kind}" for x, kind in zip(takes, types, strict=True))
    return (
        "module attributes {jax.uses_shape_polymorphism = true} {\n"
        f"func.func public @main({arguments}) -> ({out}) {{\n" + "\n".join(lines) + "\n}\n}\n"
    )


def _type(x):
    sizes = ("?" if size is None else str(size) for size in x.shape)
    return f"tensor<{'x'.join((*sizes, _TYPES[x.dtype]))}>"


def _layout(x):
    """Return the layout that `xla.cpp` expects: the last axis lies dense."""
    order = list(reversed(range(len(x.shape))))
    return f"dense<{order}> : tensor<{len(order)}xindex>"
