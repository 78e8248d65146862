"""The norm of heads in place on torch; see `torch_norms`."""

import math

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.table import Kernel, register

LEAST = 2**17
"""Numbers below which the operations cost more than what they read and write."""


def _refuse(request):
    size = math.prod(request.shapes["x"])
    if size < LEAST:
        return f"{size} numbers are too few to pay for a loop."
    return in_place.refusal(request)


def _run(*tensors, **options):
    from ember_keras.ops.kernels import torch_norms

    return torch_norms.run(*tensors, **options)


register(
    Kernel(
        "torch_head_norm",
        "head_norm",
        ("torch",),
        _refuse,
        _run,
        "gate, norm and scale on a CPU, block after block in place.",
    )
)
