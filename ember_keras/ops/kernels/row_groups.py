"""Large batches in groups of rows, where that is faster: on torch and a CPU.

torch writes every intermediate tensor out. One that is large comes from the system anew each time,
and the first touch of its pages takes longer than the arithmetic. With fewer rows the tensors are
small enough to be used again.
"""

import math

from keras import ops

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.table import Kernel, choose, register, request

LARGE = 2**20
"""Numbers of an input above which its rows are taken in groups of at most as many."""


def by_rows(function, x, *others):
    """Return ``function(x, *others)``, of each group of rows apart where that is faster.

    Args:
        function: of tensors that treats each row alone.
        x: tensor ``(B, T, D)``.
        *others: tensors ``(B, ...)``, or None.
    """
    kernel = choose(request("rows", {"x": x}))
    return function(x, *others) if kernel is None else kernel.run(function, x, *others)


def _refuse(request):
    if _count(request.shapes["x"]) < 2:
        return f"the input has one row, or at most {LARGE} numbers."
    return in_place.refusal(request)


def _run(function, x, *others):
    count = _count(x.shape)
    rows, given = int(x.shape[0]), (x, *others)
    cuts = [rows * at // count for at in range(count + 1)]
    parts = [
        function(*(None if each is None else each[start:stop] for each in given))
        for start, stop in zip(cuts, cuts[1:], strict=False)
    ]
    return ops.concatenate(parts, axis=0)


def _count(shape):
    return min(shape[0], -(-math.prod(shape) // LARGE))


register(
    Kernel(
        "torch_row_groups",
        "rows",
        ("torch",),
        _refuse,
        _run,
        "a large batch in groups of rows on a CPU, in memory that is used again.",
    )
)
