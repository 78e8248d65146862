"""Grouped matrix products by what each library has for them.

torch and numpy read where groups begin and multiply one group after another; mlx gathers a matrix
for each row inside its product; jax has `ragged_dot`, which graphics cards run group by group and
processors as E dense products, so it is left out there.
"""

import numpy as np

from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.table import Kernel, register


def _allow(request):
    return None


def _bounds(offsets):
    """The offsets as Python integers, in one copy from the device."""
    return [int(each) for each in offsets.tolist()]


def _rows_times(x, w, bounds, out):
    """Fill `out` ``(M, F)`` with each group's product, and 0 outside of groups."""
    out[: bounds[0]] = 0
    out[bounds[-1] :] = 0
    for group, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if end > start:
            out[start:end] = x[start:end] @ w[group]
    return out


def _numpy_loop(x, w, offsets):
    x, w = np.asarray(x), np.asarray(w)
    return _rows_times(x, w, _bounds(np.asarray(offsets)), np.empty((len(x), w.shape[2]), x.dtype))


def _torch_loop(x, w, offsets):
    import torch

    def products(x, w, bounds):
        parts = [x.new_zeros(bounds[0], w.shape[2])]
        for group, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
            if end > start:
                parts.append(torch.mm(x[start:end], w[group]))
        parts.append(x.new_zeros(x.shape[0] - bounds[-1], w.shape[2]))
        return torch.cat(parts)

    def forward(x, w, offsets):
        return products(x, w, _bounds(offsets)), ()

    def backward(inputs, _, g):
        x, w, offsets = inputs
        bounds = _bounds(offsets)
        dx = products(g, w.transpose(1, 2), bounds)
        pairs = zip(bounds, bounds[1:], strict=False)
        dw = torch.stack([torch.mm(x[start:end].t(), g[start:end]) for start, end in pairs])
        return dx, dw, None

    return with_gradient(forward, backward, saved=(0, 1, 2))(x, w, offsets)


def _refuse_traced(request):
    import torch

    if torch.compiler.is_compiling():
        return "torch.compile cannot read where groups begin."
    return None


def _jax_ragged(x, w, offsets):
    import jax
    import jax.numpy as jnp

    # Rows of no group get a group of their own, at either end, whose matrix is 0.
    rows = jnp.full((1,), x.shape[0], offsets.dtype)
    bounds = jnp.concatenate([jnp.zeros_like(rows), offsets, rows])
    none = jnp.zeros((1, *w.shape[1:]), w.dtype)
    return jax.lax.ragged_dot(x, jnp.concatenate([none, w, none]), bounds[1:] - bounds[:-1])


def _refuse_processor(request):
    if request.device == "cpu":
        return "ragged_dot multiplies every row with every matrix on cpu; it runs on accelerators."
    return None


def _refuse_half(request):
    if request.dtype != "float32":
        return f"it computes with float32, and not with {request.dtype}."
    return None


def _mlx_gather(x, w, offsets):
    import mlx.core as mx

    offsets = mx.stop_gradient(offsets)
    at = mx.arange(x.shape[0], dtype=mx.int32)
    group = (at[:, None] >= offsets[None, 1:]).astype(mx.int32).sum(axis=1)
    group = mx.minimum(group, w.shape[0] - 1).astype(mx.uint32)
    group = mx.stop_gradient(group)
    y = mx.gather_mm(x[:, None, :], w, rhs_indices=group, sorted_indices=True)[:, 0]
    grouped = mx.logical_and(at >= offsets[0], at < offsets[-1])
    return mx.where(grouped[:, None], y, mx.zeros_like(y))


for _NAME, _BACKENDS, _REFUSE, _RUN, _ABOUT in (
    ("numpy_groups", ("numpy",), _allow, _numpy_loop, "a product for each group that has rows."),
    ("torch_groups", ("torch",), _refuse_traced, _torch_loop, "a product for each group."),
    ("ragged_dot", ("jax",), _refuse_processor, _jax_ragged, "jax's grouped product."),
    ("gather_mm", ("mlx",), _refuse_half, _mlx_gather, "mlx's product with a matrix for each row."),
):
    register(Kernel(_NAME, "grouped_matmul", _BACKENDS, _REFUSE, _RUN, _ABOUT))
