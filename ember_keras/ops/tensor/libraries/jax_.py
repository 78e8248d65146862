"""JAX."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

_WIDE = ("int64", "uint64", "float64", "complex128")


def to_numpy(x):
    return np.asarray(x)


def from_numpy(array):
    if array.dtype.name in _WIDE and not jax.config.jax_enable_x64:
        return _narrowed(array)
    flags = array.flags
    if array.dtype == ml_dtypes.bfloat16 or not (flags.writeable and flags.c_contiguous):
        return jnp.asarray(array)
    return jnp.from_dlpack(array)  # Copies what is not aligned to 64 bytes.


def _narrowed(array):
    """The 32-bit form of a 64-bit array, for a JAX that has no 64-bit types."""
    if array.dtype.kind in "iu" and array.size:
        limits = np.iinfo(f"{'u' * (array.dtype.kind == 'u')}int32")
        if array.max() > limits.max or array.min() < limits.min:
            raise ValueError(
                f"Received {array.dtype} values from {array.min()} to {array.max()}. Expected "
                f"values that {limits.dtype} can hold, because JAX runs without 64-bit types. "
                "Set JAX_ENABLE_X64=1 before the import, or convert the values yourself."
            )
    return jnp.asarray(array)


def from_dlpack(x):
    name = str(x.dtype).rpartition(".")[2].strip("<>' ")
    if name in _WIDE and not jax.config.jax_enable_x64:
        return _narrowed(np.from_dlpack(x))
    return jnp.from_dlpack(x)


def compact(x):
    return x


def to_dlpack(x, **options):
    return x.__dlpack__(**options)


def dlpack_device(x):
    return x.__dlpack_device__()


def device(x):
    if isinstance(x, jax.core.Tracer):
        return "traced"
    devices = sorted(x.devices(), key=lambda item: item.id)
    names = [f"{item.platform}:{item.id}" for item in devices]
    return ",".join(names)


def to_device(x, device):
    available = {f"{item.platform}:{item.id}": item for item in _devices()}
    target = available.get(device if ":" in device else f"{device}:0")
    if target is None:
        raise ValueError(
            f"Received device={device!r}. Expected one of {', '.join(available)}. "
            "Install the JAX build that has the device you want."
        )
    return jax.device_put(x, target)


def _devices():
    default = jax.devices()
    if default[0].platform == "cpu":
        return default
    return [*default, *jax.devices("cpu")]


def gradient_risk(x):
    return "is traced by jax (grad, jit, vmap or scan)" if isinstance(x, jax.core.Tracer) else None


def missing_dtype(name):
    if name in _WIDE and not jax.config.jax_enable_x64:
        return "needs 64-bit types, which JAX has switched off; set JAX_ENABLE_X64=1"
    return None
