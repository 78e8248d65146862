"""The norm of heads on torch and a CPU, with the gate before it: block after block in the cache.

Written out in `torch` it is ten passes over the sequence in memory and twenty more backwards. Here
a block of positions goes through all of them before the next, and the gradient makes the inside
again out of the inputs and one number a head.
"""

import torch
from torch.nn.functional import silu

from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.norms import portable

BLOCK = 2**18
"""Numbers in a block of positions: what it needs at once stays in the cache."""


def run(x, gate, scale, bias, *, centred, epsilon):
    """Return the norm, as `norms.head_norm`."""
    given = (x, gate, scale, bias)
    at = [i for i, tensor in enumerate(given) if tensor is not None]

    def named(tensors):
        found = [None] * 4
        for i, tensor in zip(at, tensors, strict=True):
            found[i] = tensor
        return found

    def forward(*tensors):
        return _forward(*named(tensors), centred, epsilon)

    def backward(inputs, residuals, g):
        tensors = named(inputs)
        if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
            y = portable(*tensors, centred=centred, epsilon=epsilon)
            return torch.autograd.grad(y, inputs, g, create_graph=True)
        found = _backward(*tensors, *residuals, g, centred)
        return tuple(found[i] for i in at)

    tensors = [given[i] for i in at]
    return with_gradient(forward, backward, saved=range(len(at)))(*tensors)


def _forward(x, gate, scale, bias, centred, epsilon):
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    inverse = x.new_empty(*x.shape[:-1], 1)
    for out, root, values, gates in _blocks(y, inverse, x, gate):
        values = _inside(values, None if gates is None else silu(gates), centred)
        torch.mean(values.square(), -1, keepdim=True, out=root).add_(epsilon).rsqrt_()
        torch.mul(values, root, out=out)
        if scale is not None:
            out.mul_(scale)
        if bias is not None:
            out.add_(bias)
    return y, (inverse,)


def _backward(x, gate, scale, bias, inverse, g, centred):
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dgate = None if gate is None else torch.empty_like(dx)
    dscale, dbias = (None if each is None else torch.zeros_like(each) for each in (scale, bias))
    for out, gate_out, root, values, gates, slope in _blocks(dx, dgate, inverse, x, gate, g):
        opened = None if gates is None else silu(gates)
        normed = _inside(values, opened, centred) * root
        if bias is not None:
            dbias += _summed(slope, bias)
        if scale is not None:
            dscale += _summed(slope * normed, scale)
            slope = slope * scale
        # A change along the normed values changes their length alone, which is normed away.
        along = (slope * normed).mean(-1, keepdim=True)
        torch.sub(slope, normed.mul_(along), out=out).mul_(root)
        if centred:
            out.sub_(out.mean(-1, keepdim=True))
        if gates is not None:
            gate_out.copy_(torch.ops.aten.silu_backward(out * values, gates))
            out.mul_(opened)
    return dx, dgate, dscale, dbias


def _inside(x, opened, centred):
    """What is normed; `opened` is silu of the gate, or None."""
    if opened is not None:
        x = x * opened
    return x - x.mean(-1, keepdim=True) if centred else x


def _summed(x, like):
    """The sum of ``(N, H, V)`` over what `like` ``(H, V)`` or ``(V,)`` is shared by."""
    return x.sum(0 if like.ndim == 2 else (0, 1))


def _blocks(first, *others):
    """Blocks of positions of tensors ``(B, T, H, V)``, each ``(N, H, V)``; None stays None."""
    tensors = [None if x is None else x.flatten(0, 1) for x in (first, *others)]
    count = max(1, BLOCK // max(1, first.shape[2] * first.shape[3]))
    for start in range(0, len(tensors[0]), count):
        yield [None if x is None else x[start : start + count] for x in tensors]
