"""The norm of heads: its portable form, and the one in place on torch of `torch_norms`."""

import math

from keras import ops

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.table import Kernel, choose, register, request

LEAST = 2**17
"""Numbers below which the operations cost more than what they read and write."""


def head_norm(x, gate, scale, bias, *, centred, epsilon):
    """Return the norm over V of ``x * silu(gate)``, times the scale, plus the bias.

    Args:
        x: tensor ``(B, T, H, V)``.
        gate: tensor like x, or None.
        scale: tensor ``(V,)`` or ``(H, V)``, or None.
        bias: tensor like the scale, or None.
        centred: bool. The mean is subtracted.
        epsilon: float, added to the mean square.
    """
    kernel = choose(request("head_norm", {"x": x}))
    form = portable if kernel is None else kernel.run
    return form(x, gate, scale, bias, centred=centred, epsilon=epsilon)


def portable(x, gate, scale, bias, *, centred, epsilon):
    """`head_norm` in `keras.ops`."""
    if gate is not None:
        x = x * ops.silu(gate)
    if centred:
        x = x - ops.mean(x, axis=-1, keepdims=True)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + epsilon)
    if scale is not None:
        x = x * scale
    return x if bias is None else x + bias


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
