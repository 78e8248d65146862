"""The kernel as operators of torch, which autograd and `torch.compile` know."""

import torch

from ember_keras.cuda import grouped, library
from ember_keras.ops.kernels import row_blocks
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.torch_devices import require_one_device
from ember_keras.ops.kernels.torch_rows import register_rows

_KERNEL = grouped.load()[0]
if _KERNEL is not None:
    library.load()[0].use_openmp(torch._C.__file__)

torch.library.define(
    "ember_keras::grouped_rows", "(Tensor x, Tensor w, Tensor offsets, bool transposed) -> Tensor"
)
torch.library.define(
    "ember_keras::grouped_weights", "(Tensor x, Tensor g, Tensor offsets) -> Tensor"
)
_OPERATORS = torch.ops.ember_keras


def run(x, w, offsets):
    """Return ``(M, F)``; see `ember_keras.ops.grouped_matmul`."""

    def forward(x, w, offsets):
        return _OPERATORS.grouped_rows(x, w, offsets, False), ()

    def backward(inputs, _, g):
        x, w, offsets = inputs
        if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
            return row_blocks.gradients(x, w, offsets, g)
        dx = _OPERATORS.grouped_rows(g, w, offsets, True)
        return dx, _OPERATORS.grouped_weights(x, g, offsets), None

    return with_gradient(forward, backward, saved=(0, 1, 2))(x, w, offsets)


@torch.library.impl("ember_keras::grouped_rows", "cpu")
def _rows(x, w, offsets, transposed):
    require_one_device("grouped_matmul", x=x, w=w, offsets=offsets)
    x, w, offsets = (each.contiguous() for each in (x, w, offsets))
    y = x.new_empty(x.shape[0], w.shape[1 if transposed else 2])
    _KERNEL.rows(x, w, offsets, y, transposed=transposed, threads=torch.get_num_threads())
    return y


@torch.library.impl("ember_keras::grouped_weights", "cpu")
def _weights(x, g, offsets):
    require_one_device("grouped_matmul", x=x, g=g, offsets=offsets)
    x, g, offsets = (each.contiguous() for each in (x, g, offsets))
    dw = x.new_empty(offsets.shape[0] - 1, x.shape[1], g.shape[1])
    _KERNEL.weights(x, g, offsets, dw, threads=torch.get_num_threads())
    return dw


@torch.library.register_fake("ember_keras::grouped_rows")
def _(x, w, offsets, transposed):
    require_one_device("grouped_matmul", x=x, w=w, offsets=offsets)
    return x.new_empty(x.shape[0], w.shape[1 if transposed else 2])


@torch.library.register_fake("ember_keras::grouped_weights")
def _(x, g, offsets):
    require_one_device("grouped_matmul", x=x, g=g, offsets=offsets)
    return x.new_empty(offsets.shape[0] - 1, x.shape[1], g.shape[1])


register_rows("ember_keras::grouped_rows")
register_rows("ember_keras::grouped_weights")
