"""MLX."""

import ml_dtypes
import mlx.core as mx
import numpy as np

_traces = 0


def _count(x):
    global _traces
    _traces += 1
    return x + 1


# MLX runs the Python function of a compiled one again, instead of its compiled form, when every
# argument is a tracer of grad, vmap or compile. This is the only public sign of a tracer.
_counted = mx.compile(_count, shapeless=True)
_constant = mx.array(0)


def _runs_python_again(x):
    _counted(x)
    before = _traces
    _counted(x)
    return _traces != before


def gradient_risk(x):
    # Where compilation is switched off, even a constant runs Python again: nothing can be told.
    if _runs_python_again(x) and not _runs_python_again(_constant):
        return "is traced by mlx (grad, value_and_grad, vmap or compile)"
    return None


def to_numpy(x):
    if x.dtype == mx.bfloat16:  # Numpy has no bfloat16 of its own: share the bits.
        return np.array(x.view(mx.uint16), copy=False).view(ml_dtypes.bfloat16)
    return np.array(x, copy=False)


def from_numpy(array):
    if array.dtype == ml_dtypes.bfloat16:
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    elif array.dtype == np.complex128:
        array = array.astype(np.complex64)
    return mx.array(array)


def from_dlpack(x):
    return from_numpy(np.from_dlpack(x))


def compact(x):
    return x


def to_dlpack(x, **options):
    options = {key: value for key, value in options.items() if value is not None}
    if options.pop("copy", False):
        x = mx.array(x)
    options.pop("max_version", None)
    if options:
        raise BufferError(
            f"Received {', '.join(options)} for the DLPack export of an MLX array. MLX exports to "
            "its own device and stream only: call `__dlpack__()` without them."
        )
    mx.eval(x)
    return x.__dlpack__()


def dlpack_device(x):
    return x.__dlpack_device__()


def device(x):
    # MLX arrays live in memory that every device of the machine sees; the default one computes.
    kind = mx.default_device().type
    return "gpu:0" if kind == mx.gpu else "cpu:0"


def to_device(x, target):
    current = device(x)
    if target not in (current, current[:3]):
        raise ValueError(
            f"Received device={target!r}. Expected {current!r}, MLX's default device: its arrays "
            "live in memory that all devices share, so nothing moves. "
            "Choose the device that computes with `mlx.core.set_default_device`."
        )
    return x


def missing_dtype(name):
    if name in ("float64", "complex128"):
        return "has no 64-bit floating point under MLX; use float32 or complex64"
    return None
