"""The long convolution's C++ and CUDA kernels in the kernel table.

The kernels are in `ember_keras/cuda`; here is when they run, and how each backend reaches them:
torch by custom operators, jax and tensorflow by a custom call of XLA, mlx by a primitive, numpy by
a call on its arrays.
"""

import importlib

from ember_keras import backend
from ember_keras.cuda import library
from ember_keras.ops.kernels.table import Kernel, register

_FORMS = {
    "jax": "jax_form",
    "mlx": "mlx_form",
    "numpy": "array_form",
    "tensorflow": "tensorflow_form",
    "torch": "torch_form",
}

_FORM = None
if backend.name() in _FORMS:
    _FORM = importlib.import_module(f"{__name__}.{_FORMS[backend.name()]}")
_LIBRARY, _REASON = library.load()
# mlx has a library of its own beside that one, and TensorFlow may be unable to call it.
_REASON = getattr(_FORM, "REASON", _REASON)

_FLOATS = ("float16", "bfloat16", "float32")


def reason():
    """Return why this installation has no such kernel, in a sentence, or None where it has."""
    return _REASON


def _refusal(missing, device, dtypes):
    """Return the `refuse` of a kernel for one kind of device, or of one that is `missing`."""

    def refuse(request):
        if missing is not None:
            return missing
        if request.device != device:
            return f"it runs on {device}, and the tensors are on {request.device}."
        if request.dtype not in dtypes:
            return f"it computes with {', '.join(dtypes)}, and not with {request.dtype}."
        return None

    return refuse


_GATES = ("gate_in", "gate_out")


def _run(u, k, d, *, start, length, skip, fft_length, **gates):
    return _FORM.run(u, k, d, start, length, skip, fft_length, **gates)


register(
    Kernel(
        "cpu_fft_conv",
        "fft_conv",
        tuple(_FORMS),
        _refusal(_REASON, "cpu", (*_FLOATS, "float64")),
        _run,
        "C++ on the processor" + ("." if _LIBRARY is None else f", compiled for {_LIBRARY.isa()}."),
        _GATES,
    ),
    first=True,
)
register(
    Kernel(
        "cuda_fft_conv",
        "fft_conv",
        ("torch", "jax"),
        _refusal(library.load_gpu()[1], "cuda", _FLOATS),
        _run,
        "CUDA C++, tested on its twin on the processor; no graphics card has run it yet.",
        _GATES,
    ),
    first=True,
)
