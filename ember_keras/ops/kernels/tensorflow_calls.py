"""Calls of a handler of XLA under TensorFlow: eager, in `tf.function`, with `jit_compile`.

TensorFlow's operator XlaCallModule compiles a module of StableHLO, here one that is nothing but the
call. Only the backend's own forms of kernels import this.
"""

import pathlib

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as tf_xla

from ember_keras.cuda import library

VERSION = 9
"""The version of XlaCallModule whose rules the modules follow."""

_TYPES = {
    tf.float32: "f32",
    tf.float64: "f64",
    tf.float16: "f16",
    tf.bfloat16: "bf16",
    tf.int32: "i32",
}

XLA = next(pathlib.Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc.*"), None)
"""The path of the library that holds TensorFlow's XLA, or None."""


def call(name, inputs, like, numbers):
    """Call a handler of XLA on tensors, whose first axis may be unknown.

    Args:
        name: str, the name that the handler was registered under.
        inputs: tuple of tensors.
        like: list of `tf.TensorSpec`, the results. One whose first axis is unknown has that of the
            first input.
        numbers: dict of int, the attributes of the call.
    """
    return tf_xla.call_module(
        inputs,
        version=VERSION,
        module=_module(name, inputs, like, numbers),
        Tout=[x.dtype for x in like],
        Sout=[x.shape for x in like],
        platforms=["CPU"],
    )


def threads():
    """Return how many threads TensorFlow gives an operation."""
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
