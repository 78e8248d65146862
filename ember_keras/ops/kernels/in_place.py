"""Where a kernel can run that writes in place on torch, operation by operation."""

from keras import ops

from ember_keras import backend
from ember_keras.ops.kernels.gradient import is_differentiated_again


def refusal(request):
    """Return None where such a kernel can run a `Request`, else the reason."""
    if request.device != "cpu":
        return f"a loop of small operations is slow to launch on {request.device}; it runs on cpu."
    return transformation(request)


def transformation(request):
    """Return None where torch runs what it is told, else what takes the operations, and why not."""
    import torch

    if torch.compiler.is_compiling():
        return "torch.compile would write out the whole loop; the portable form is short."
    if by_torch_func():
        return "a transformation of torch.func differentiates the portable form itself."
    return None


def by_torch_func():
    """Return whether a transformation of torch.func runs the operations."""
    import torch

    return torch._C._functorch.peek_interpreter_stack() is not None


def add_product(total, a, b):
    """Return ``total + a b`` of matrices, in the memory of `total` where torch can have it there.

    Args:
        total: tensor ``(N, M)`` that nothing else reads.
        a: tensor ``(N, K)``.
        b: tensor ``(K, M)``.
    """
    if backend.name() != "torch" or is_differentiated_again() or transformation(None) is not None:
        return total + ops.matmul(a, b)
    return total.addmm_(a, b)
