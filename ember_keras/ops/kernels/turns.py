"""Long sequences in blocks of chunks, one after another: on torch and a CPU.

Written out for all chunks at once, a chunkwise form has some thirty tensors of the size of the
sequence. In turns they have the size of a block, and their memory is used again.
"""

import math

from keras import ops

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.table import Kernel, register

LARGE = 2**19
"""Numbers of the queries in a block."""


def _refuse(request):
    if len(request.shapes["log_decay"]) == 3:
        return "each head has one decay, and its chunks are small as they are."
    if math.prod(request.shapes["q"]) <= LARGE:
        return f"the queries have at most {LARGE} numbers."
    return in_place.refusal(request)


def _run(q, k, v, log_decay, state, run, *, form):
    tensors = (q, k, v, log_decay)
    chunks, outputs = int(q.shape[1]), []
    count = min(chunks, -(-q.numel() // LARGE))
    cuts = [chunks * at // count for at in range(count + 1)]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        here = None if run is None else run[:, start:stop]
        if start and run is not None:  # The run that was last counts as 0.
            here = here - run[:, start - 1 : start, -1:]
        o, state = form(*(x[:, start:stop] for x in tensors), state, here)
        outputs.append(o)
    return ops.concatenate(outputs, axis=1), state


register(
    Kernel(
        "torch_turns",
        "gated_linear_attention",
        ("torch",),
        _refuse,
        _run,
        "a decay a channel: a long sequence in blocks of chunks, in memory that is used again.",
    )
)
