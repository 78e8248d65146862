"""The kernel as a custom call of XLA: under `jit`, `grad` and `vmap`; without copies."""

import jax
import numpy as np

from ember_keras.cuda import grouped, library
from ember_keras.ops.kernels import row_blocks
from ember_keras.ops.kernels.shards import varying_alike

ROWS, WEIGHTS = "ember_keras_grouped_rows", "ember_keras_grouped_weights"

_KERNEL = grouped.load()[0]
if _KERNEL is not None:
    for _NAME, _HANDLER in {ROWS: _KERNEL.xla_rows, WEIGHTS: _KERNEL.xla_weights}.items():
        jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(_HANDLER), platform="cpu")


def run(x, w, offsets):
    """Return ``(M, F)``; see `ember_keras.ops.grouped_matmul`."""
    return _product(*varying_alike(x, w, offsets))


def _call(name, shape, *inputs, transposed=0):
    call = jax.ffi.ffi_call(
        name, jax.ShapeDtypeStruct(shape, inputs[0].dtype), vmap_method="sequential"
    )
    y = call(*inputs, transposed=np.int64(transposed), threads=np.int64(library.cores()))
    return varying_alike(inputs[0], y)[1]  # A call's output is the same everywhere for jax.


@jax.custom_vjp
def _product(x, w, offsets):
    return _call(ROWS, (x.shape[0], w.shape[2]), x, w, offsets)


def _forward(x, w, offsets):
    return _product(x, w, offsets), (x, w, offsets)


def _backward(kept, g):
    return (*_gradients(*kept, g), None)


@jax.custom_vjp
def _gradients(x, w, offsets, g):
    dx = _call(ROWS, x.shape, g, w, offsets, transposed=1)
    return dx, _call(WEIGHTS, w.shape, x, g, offsets)


def _forward_again(*tensors):
    return _gradients(*tensors), tensors


def _backward_again(kept, cotangents):
    x, w, offsets, g = kept

    def plain(x, w, g):
        return row_blocks.gradients(x, w, offsets, g)[:2]

    dx, dw, dg = jax.vjp(plain, x, w, g)[1](cotangents)
    return dx, dw, None, dg


_product.defvjp(_forward, _backward)
_gradients.defvjp(_forward_again, _backward_again)
