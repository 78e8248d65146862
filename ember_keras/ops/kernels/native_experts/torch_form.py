"""The kernel as operators of torch, which autograd and `torch.compile` know."""

import torch

from ember_keras.cuda import experts, library
from ember_keras.ops.kernels.gradient import is_differentiated, with_gradient
from ember_keras.ops.kernels.native_experts import plain
from ember_keras.ops.kernels.torch_memory import BLOCKS
from ember_keras.ops.kernels.torch_rows import register_rows

_KERNEL = experts.load()[0]
if _KERNEL is not None:
    library.load()[0].use_openmp(torch._C.__file__)

_INPUTS = "Tensor x, Tensor chosen, Tensor weights, Tensor gate_up, Tensor down"
torch.library.define("ember_keras::experts_forward", f"({_INPUTS}, bool keeps) -> (Tensor, Tensor)")
torch.library.define(
    "ember_keras::experts_backward",
    f"({_INPUTS}, Tensor kept, Tensor g) -> (Tensor, Tensor, Tensor, Tensor)",
)
_OPERATORS = torch.ops.ember_keras


def run(x, chosen, weights, gate_up, down):
    """Return ``(N, D)``; see `plain.run`."""
    inputs = (x, chosen, weights, gate_up, down)
    if not is_differentiated(inputs):
        return _OPERATORS.experts_forward(*inputs, False)[0]
    return with_gradient(_forward, _backward, saved=tuple(range(5)))(*inputs)


def _forward(*inputs):
    y, kept = _OPERATORS.experts_forward(*inputs, True)
    return y, (kept,)


def _backward(inputs, known, g):
    if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
        return _gradients(*inputs, g)
    dx, dweights, dgate_up, ddown = _OPERATORS.experts_backward(*inputs, *known, g.contiguous())
    return dx, None, dweights, dgate_up, ddown


def _gradients(x, chosen, weights, gate_up, down, g):
    def form(x, *others):
        return plain.run(x, chosen, *others)

    slopes = torch.func.vjp(form, x, weights, gate_up, down)[1]
    dx, dweights, dgate_up, ddown = slopes(g)
    return dx, None, dweights, dgate_up, ddown


@torch.library.impl("ember_keras::experts_forward", "cpu")
def _run_forward(x, chosen, weights, gate_up, down, keeps):
    inputs = _dense(x, chosen, weights, gate_up, down)
    y = torch.empty_like(inputs[0])
    kept = BLOCKS.empty(*_kept(chosen, down) if keeps else (0, 0))
    threads = torch.get_num_threads()
    _KERNEL.forward(inputs, y, kept if keeps else None, threads=threads)
    return y, kept


@torch.library.impl("ember_keras::experts_backward", "cpu")
def _run_backward(x, chosen, weights, gate_up, down, kept, g):
    inputs = _dense(x, chosen, weights, gate_up, down)
    slopes = [torch.empty_like(each) for each in (inputs[0], *inputs[2:])]
    _KERNEL.backward(inputs, kept, g.contiguous(), slopes, threads=torch.get_num_threads())
    return tuple(slopes)


@torch.library.register_fake("ember_keras::experts_forward")
def _(x, chosen, weights, gate_up, down, keeps):
    kept = x.new_empty(*_kept(chosen, down) if keeps else (0, 0))
    return x.new_empty(x.shape), kept


@torch.library.register_fake("ember_keras::experts_backward")
def _(x, chosen, weights, gate_up, down, kept, g):
    return tuple(each.new_empty(each.shape) for each in (x, weights, gate_up, down))


register_rows("ember_keras::experts_forward")
register_rows("ember_keras::experts_backward")


def _dense(x, chosen, *others):
    return x.contiguous(), chosen.to(torch.int32).contiguous(), *(v.contiguous() for v in others)


def _kept(chosen, down):
    return chosen.shape[0], experts.kept_width(chosen.shape[1], down.shape[1])
