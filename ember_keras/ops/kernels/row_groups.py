"""Large batches in groups of rows, where that is faster: on torch and a CPU.

torch writes every intermediate tensor out. One that is large comes from the system anew each time,
and the first touch of its pages takes longer than the arithmetic. With fewer rows the tensors are
small enough to be used again.
"""

from keras import ops

from ember_keras.ops.kernels import in_place

LARGE = 2**20
"""Numbers of an input above which its rows are taken in groups of at most as many."""


def in_groups(function, x, *others):
    """Return ``function(x, *others)``, of each group of rows apart where that is faster.

    Args:
        function: of tensors that treats each row alone.
        x: tensor ``(B, T, D)``.
        *others: tensors ``(B, ...)``, or None.
    """
    count = _count(x)
    if count < 2:
        return function(x, *others)
    rows, given = int(x.shape[0]), (x, *others)
    cuts = [rows * at // count for at in range(count + 1)]
    parts = [
        function(*(None if each is None else each[start:stop] for each in given))
        for start, stop in zip(cuts, cuts[1:], strict=False)
    ]
    return ops.concatenate(parts, axis=0)


def _count(x):
    if not in_place.eager(x):
        return 1
    rows, numbers = x.shape[0], x.numel()
    return min(rows, -(-numbers // LARGE))
