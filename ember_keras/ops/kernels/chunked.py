"""Chunks of gated linear attention in place on torch; see `torch_chunks`."""

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.table import Kernel, register

LEAST = 2**16
"""Numbers in the pairs of a chunk below which its operations cost more than its arithmetic."""


def _refuse(request):
    (batch, _, heads, _), size = request.shapes["v"], request.options["size"]
    if len(request.shapes["log_decay"]) == 4:
        return "each channel of the keys has a decay of its own."
    if batch * heads * size**2 < LEAST:
        return f"{batch} x {heads} heads of {size} positions a chunk are too few to pay for a loop."
    return in_place.refusal(request)


def _run(*tensors, **options):
    from ember_keras.ops.kernels import torch_chunks

    return torch_chunks.run(*tensors, **options)


register(
    Kernel(
        "torch_chunks",
        "gated_linear_attention",
        ("torch",),
        _refuse,
        _run,
        "chunk after chunk on a CPU, in place.",
    )
)
