"""The long convolution's C++ kernel in the kernel table.

The kernel is `ember_keras/cuda`; here is when it runs, and how each backend reaches it: torch by a
custom operator, jax by a custom call of XLA, numpy by a call on its arrays.
"""

import importlib

from ember_keras import backend
from ember_keras.cuda import library
from ember_keras.ops.kernels.table import Kernel, register

_FORMS = {
    "jax": "jax_form",
    "numpy": "array_form",
    "torch": "torch_form",
}

_FORM = None
if backend.name() in _FORMS:
    _FORM = importlib.import_module(f"{__name__}.{_FORMS[backend.name()]}")
_LIBRARY, _REASON = library.load()

_DTYPES = ("float16", "bfloat16", "float32", "float64")


def reason():
    """Return why this installation has no such kernel, in a sentence, or None where it has."""
    return _REASON


def _refuse(request):
    if _REASON is not None:
        return _REASON
    if request.device != "cpu":
        return f"it runs on processors, and the tensors are on {request.device}."
    if request.dtype not in _DTYPES:
        return f"it computes with {', '.join(_DTYPES)}, and not with {request.dtype}."
    return None


def _run(u, k, d, *, start, length, skip, fft_length):
    return _FORM.run(u, k, d, start, length, skip, fft_length)


register(
    Kernel(
        "cpu_fft_conv",
        "fft_conv",
        tuple(_FORMS),
        _refuse,
        _run,
        "C++ on the processor" + ("." if _LIBRARY is None else f", compiled for {_LIBRARY.isa()}."),
    ),
    first=True,
)
