"""The kernel as a custom call of XLA: under `jit`, `grad`, `vmap`, `shard_map`; without copies."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from ember_keras.cuda import library

EAGER = False

FORWARD, BACKWARD = "ember_keras_fft_conv", "ember_keras_fft_conv_backward"

_LIBRARY = library.load()[0]
if _LIBRARY is not None:
    jax.ffi.register_ffi_target(FORWARD, jax.ffi.pycapsule(_LIBRARY.xla_forward), platform="cpu")
    jax.ffi.register_ffi_target(BACKWARD, jax.ffi.pycapsule(_LIBRARY.xla_backward), platform="cpu")


def run(u, k, d, start, length, skip):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    k = k.astype(u.dtype if u.dtype == jnp.float64 else jnp.float32)
    d = None if d is None else d.astype(k.dtype)
    return _convolution(u, k, d, start, length, skip)


def _threads():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _convolution(u, k, d, start, length, skip):
    shape = (u.shape[0], length, u.shape[2])
    call = jax.ffi.ffi_call(
        FORWARD, jax.ShapeDtypeStruct(shape, u.dtype), vmap_method="expand_dims"
    )
    inputs = (u, k) if d is None else (u, k, d)
    return call(*inputs, **_attributes(d, start, skip))


def _forward(u, k, d, start, length, skip):
    return _convolution(u, k, d, start, length, skip), (u, k, d)


def _backward(start, length, skip, kept, g):
    u, k, d = kept
    inputs = (u, k, g) if d is None else (u, k, g, d)
    like = (u, k) if d is None else (u, k, d)
    call = jax.ffi.ffi_call(
        BACKWARD, [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like], vmap_method="expand_dims"
    )
    found = call(*inputs, **_attributes(d, start, skip))
    return (*found, None) if d is None else tuple(found)


def _attributes(d, start, skip):
    numbers = {"start": start, "skip": skip, "skips": d is not None, "threads": _threads()}
    return {name: np.int64(value) for name, value in numbers.items()}


_convolution.defvjp(_forward, _backward)
