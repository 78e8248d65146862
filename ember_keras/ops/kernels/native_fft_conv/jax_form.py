"""The kernel as a custom call of XLA: under `jit`, `grad`, `vmap`, `shard_map`; without copies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ember_keras.cuda import library
from ember_keras.ops.kernels.complex_fft import gated_gradients
from ember_keras.ops.kernels.shards import varying_alike

FORWARD, BACKWARD = "ember_keras_fft_conv", "ember_keras_fft_conv_backward"

# One name on every platform: XLA takes the handler of the one that it compiles a call for.
for _PLATFORM, _LIBRARY in {"cpu": library.load()[0], "CUDA": library.load_gpu()[0]}.items():
    if _LIBRARY is not None:
        _HANDLERS = {FORWARD: _LIBRARY.xla_forward, BACKWARD: _LIBRARY.xla_backward}
        for _NAME, _HANDLER in _HANDLERS.items():
            jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(_HANDLER), platform=_PLATFORM)


def run(u, k, d, start, length, skip, fft_length, gate_in=None, gate_out=None):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    k = k.astype(u.dtype if u.dtype == jnp.float64 else jnp.float32)
    d = None if d is None else d.astype(k.dtype)
    tensors = varying_alike(u, k, d, gate_in, gate_out)
    return _convolution(*tensors, start, length, skip, fft_length)


def _call(name, inputs, like, start, skip):
    """Call a handler on its inputs, of which the last three may be None: d and the gates."""
    given = [x for x in inputs if x is not None]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like if x is not None]
    call = jax.ffi.ffi_call(name, shapes, vmap_method="expand_dims")
    numbers = {"start": start, "skip": skip, "threads": library.cores()}
    numbers |= {which: x is not None for which, x in zip(_MAY_BE, inputs[-3:], strict=True)}
    found = call(*given, **{which: np.int64(value) for which, value in numbers.items()})
    return varying_alike(given[0], *found)[1:]  # A call's outputs are the same everywhere for jax.


_MAY_BE = ("skips", "gates_in", "gates_out")


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def _convolution(u, k, d, gate_in, gate_out, start, length, skip, fft_length):
    y = jax.ShapeDtypeStruct((u.shape[0], length, u.shape[2]), u.dtype)
    return _call(FORWARD, (u, k, d, gate_in, gate_out), [y], start, skip)[0]


def _forward(*arguments):
    return _convolution(*arguments), arguments[:5]


def _backward(start, length, skip, fft_length, kept, g):
    return _gradients(*kept, g, start, skip, fft_length)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def _gradients(u, k, d, gate_in, gate_out, g, start, skip, fft_length):
    like = (u, k, d, gate_in, gate_out)
    found = iter(_call(BACKWARD, (u, k, g, d, gate_in, gate_out), like, start, skip))
    return tuple(None if x is None else next(found) for x in like)


def _forward_again(*arguments):
    return _gradients(*arguments), arguments[:6]


def _backward_again(start, skip, fft_length, kept, cotangents):
    plain = functools.partial(gated_gradients, start=start, skip=skip, fft_length=fft_length)
    return jax.vjp(plain, *kept)[1](cotangents)


_convolution.defvjp(_forward, _backward)
_gradients.defvjp(_forward_again, _backward_again)
