"""The time loop on jax, with the gradients of its weights after it.

The gradient of a product ``a @ W`` inside a loop has two costs which the loop itself has not: it
adds to the whole gradient of W at every position, and it multiplies by W transposed, which XLA does
on a CPU at half the speed. Here W is transposed once before the loop, and the gradient of W is one
product after it, over all positions.
"""

from ember_keras.ops.kernels import time_loop
from ember_keras.ops.kernels.table import Kernel, register


def _refuse(request):
    if request.options["recompute"]:
        return "the inside is computed again, position by position, where recompute is set."
    cell = request.options["cell"]
    if cell is not None and not time_loop.pure(cell):
        return (
            "the cell holds values of its own, whose gradients it would not see; it takes a "
            "function without closure or a frozen dataclass, whose tensors come in `weights`."
        )
    return None


def _run(step, state, xs, weights, *, recompute=False):
    from ember_keras.ops.kernels import jax_loop

    return jax_loop.run(step, state, xs, weights)


register(
    Kernel(
        "late_products",
        "nonlinear_scan",
        ("jax",),
        _refuse,
        _run,
        "the gradient of each weight matrix by one product after the loop.",
    )
)
