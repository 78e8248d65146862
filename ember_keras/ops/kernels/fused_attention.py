"""The fused attention of torch and mlx.

jax's `dot_product_attention` is left out: on CPU its forward is no faster than the portable form
and its gradient four times slower (measured with jax 0.10.2).
"""

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.table import Kernel, register

MASKED = 2**20
"""Queries times keys up to which a kernel takes a mask, or makes scores, of that size."""


def _refuse_torch(request):
    import torch

    time, source = request.shapes["q"][1], request.shapes["k"][1]
    if not _plain(request) and time * source > MASKED:
        return (
            f"torch takes padding, segments, windows and states as a mask of {time} x {source} "
            f"entries; above {MASKED} the portable form needs less memory."
        )
    if request.device == "cpu" and not torch.compiler.is_compiling() and in_place.by_torch_func():
        return "torch.func.vmap has no rule for torch's fused attention on a CPU."
    return None


def _run_torch(q, k, v, *, causal, window, scale, visible):
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    options = {"scale": scale, "enable_gqa": q.shape[2] != k.shape[2]}
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if visible is None:
        return scaled_dot_product_attention(q, k, v, is_causal=causal, **options).transpose(1, 2)
    allowed = visible()[:, None]
    # A row that sees nothing would be NaN: it sees all here, and its output is dropped.
    blind = ~allowed.any(-1, keepdim=True)
    out = scaled_dot_product_attention(q, k, v, attn_mask=allowed | blind, **options)
    return torch.where(blind, torch.zeros((), dtype=out.dtype, device=out.device), out).transpose(
        1, 2
    )


def _refuse_mlx(request):
    if not _plain(request):
        return "mlx's fused attention is used without padding, segments, windows and states only."
    if request.dtype == "float64":
        return "mlx's fused attention has no float64."
    time, source = request.shapes["q"][1], request.shapes["k"][1]
    if request.device == "cpu" and time * source > MASKED:
        return (
            f"on a CPU mlx holds all {time} x {source} scores; above {MASKED} the portable form "
            "needs less memory."
        )
    return None


def _run_mlx(q, k, v, *, causal, window, scale, visible):
    import mlx.core as mx

    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    mask = "causal" if causal else None
    out = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return out.transpose(0, 2, 1, 3)


def _plain(request):
    return not request.options["masked"] and request.options["window"] is None


register(
    Kernel(
        "torch_sdpa",
        "attention",
        ("torch",),
        _refuse_torch,
        _run_torch,
        "torch.nn.functional.scaled_dot_product_attention.",
    )
)
register(
    Kernel(
        "mlx_sdpa",
        "attention",
        ("mlx",),
        _refuse_mlx,
        _run_mlx,
        "mlx.core.fast.scaled_dot_product_attention.",
    )
)
