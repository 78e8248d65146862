"""Gated experts' C++ kernel in the kernel table.

The kernel is in `ember_keras/cuda`; here is when it runs, and how each backend reaches it: torch by
custom operators, jax and tensorflow by a custom call of XLA, numpy by a call on its arrays.
"""

import importlib

from ember_keras import backend
from ember_keras.cuda import experts
from ember_keras.ops.kernels.table import Kernel, register

_FORMS = {
    "jax": "jax_form",
    "numpy": "array_form",
    "tensorflow": "tensorflow_form",
    "torch": "torch_form",
}

_FORM = None
if backend.name() in _FORMS:
    _FORM = importlib.import_module(f"{__name__}.{_FORMS[backend.name()]}")
_REASON = getattr(_FORM, "REASON", experts.load()[1])


def _refuse(request):
    if _REASON is not None:
        return _REASON
    if request.device != "cpu":
        return f"it runs on cpu, and the tensors are on {request.device}."
    if request.dtype != "float32":
        return f"it computes with float32, and not with {request.dtype}."
    options = request.options
    if options["gate"] != "swiglu":
        return f"its gate is swiglu, and not {options['gate']}."
    if options["biased"] or options["dropped"]:
        return "it has neither biases nor dropout."
    return None


def _run(x, chosen, weights, gate_up, down):
    return _FORM.run(x, chosen, weights, gate_up, down)


register(
    Kernel(
        "cpu_gated_experts",
        "gated_experts",
        tuple(_FORMS),
        _refuse,
        _run,
        "C++ on the processor.",
    )
)
