"""The kernel as a custom call of XLA: under `jit`, `grad` and `vmap`; without copies."""

import jax
import numpy as np

from ember_keras.cuda import experts, library
from ember_keras.ops.kernels.native_experts import plain
from ember_keras.ops.kernels.shards import varying_alike

FORWARD, BACKWARD = "ember_keras_experts_forward", "ember_keras_experts_backward"

_KERNEL = experts.load()[0]
if _KERNEL is not None:
    for _NAME, _HANDLER in {FORWARD: _KERNEL.xla_forward, BACKWARD: _KERNEL.xla_backward}.items():
        jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(_HANDLER), platform="cpu")


def run(x, chosen, weights, gate_up, down):
    """Return ``(N, D)``; see `plain.run`."""
    return _mixture(*varying_alike(x, chosen, weights, gate_up, down))


def _call(name, like, *inputs):
    specs = [jax.ShapeDtypeStruct(shape, inputs[0].dtype) for shape in like]
    call = jax.ffi.ffi_call(name, specs, vmap_method="sequential")
    results = call(*inputs, threads=np.int64(library.cores()))
    # A call's outputs are the same everywhere for jax.
    return varying_alike(inputs[0], *results)[1:]


@jax.custom_vjp
def _mixture(*inputs):
    return _call(FORWARD, [inputs[0].shape], *inputs)[0]


def _forward(*inputs):
    y, kept = _with_kept(*inputs)
    return y, (inputs, kept)


@jax.custom_vjp
def _with_kept(*inputs):
    x, chosen, _, _, down = inputs
    kept = (x.shape[0], experts.kept_width(chosen.shape[1], down.shape[1]))
    return tuple(_call(FORWARD, [x.shape, kept], *inputs))


def _forward_with_kept(*inputs):
    y, kept = _with_kept(*inputs)
    return (y, kept), (inputs, kept)


def _backward(residuals, g):
    inputs, kept = residuals
    dx, dweights, dgate_up, ddown = _gradients(inputs, kept, g)
    return dx, None, dweights, dgate_up, ddown


def _backward_with_kept(residuals, cotangents):
    # Gradients of gradients make what was kept anew: they have none for it.
    return _backward(residuals, cotangents[0])


@jax.custom_vjp
def _gradients(inputs, kept, g):
    x, _, *weights = inputs
    return tuple(_call(BACKWARD, [each.shape for each in (x, *weights)], *inputs, kept, g))


def _forward_again(inputs, kept, g):
    return _gradients(inputs, kept, g), (inputs, kept, g)


def _backward_again(residuals, cotangents):
    (x, chosen, *weights), kept, g = residuals

    def slopes(x, weights, g):
        found = jax.vjp(lambda x, weights: plain.run(x, chosen, *weights), x, weights)[1](g)
        return found[0], *found[1]

    dx, dweights, dg = jax.vjp(slopes, x, weights, g)[1](cotangents)
    return (dx, None, *dweights), jax.numpy.zeros_like(kept), dg


_mixture.defvjp(_forward, _backward)
_with_kept.defvjp(_forward_with_kept, _backward_with_kept)
_gradients.defvjp(_forward_again, _backward_again)
