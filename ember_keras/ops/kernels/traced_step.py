"""The time loop on torch, over a step that is traced once.

A call of `keras.ops` costs some 10 us, as much as the small products of a step. The step and its
gradient are traced together to a graph of torch's own operations, which is cut in pieces:

- `fixed`: what depends on the weights alone, once a call;
- `forward`: outputs, the next state, and what the gradient needs of the inside, once a position;
- `through`: the gradient of the state, once a position, backwards;
- `rest`: the gradients of weights and inputs, once, with all positions as rows: the cell treats
  rows alone, so that they are a few large products in place of many small ones.

Where the inside is computed again (`recompute`), `through` and `rest` are one piece that runs once
a position.
"""

from ember_keras.ops.kernels import in_place, time_loop
from ember_keras.ops.kernels.table import Kernel, register


def _refuse(request):
    import torch

    if torch.compiler.is_compiling():
        return "torch.compile traces the whole loop itself."
    if in_place.by_torch_func():
        return "a transformation of torch.func differentiates the step itself."
    cell = request.options["cell"]
    if cell is not None and not time_loop.pure(cell):
        return (
            "the cell holds values of its own, which a trace would fix; it is traced where it is a "
            "function without closure or a frozen dataclass, and its tensors come in `weights`."
        )
    return None


def _run(step, state, xs, weights, *, recompute=False):
    from ember_keras.ops.kernels import torch_loop

    return torch_loop.run(step, state, xs, weights, recompute)


register(
    Kernel(
        "traced_step",
        "nonlinear_scan",
        ("torch",),
        _refuse,
        _run,
        "the step and its gradient, traced once to torch's own operations.",
    )
)
