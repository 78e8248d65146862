"""Long sequences in blocks of chunks, one after another: on torch and a CPU.

Written out for all chunks at once, a chunkwise form has some thirty tensors of the size of the
sequence. In turns they have the size of a block, and their memory is used again.
"""

from keras import ops

from ember_keras.ops.kernels import in_place

LARGE = 2**19
"""Numbers of the first tensor in a block."""


def in_turns(form, tensors, state, run=None):
    """Return ``(o, state)`` of ``form(*tensors, state, run)``.

    Args:
        form: function of tensors ``(B, N, ...)`` of N chunks, the state before them, and `run`,
            that returns ``(o, state)``, with o ``(B, N, ...)``.
        tensors: tuple of such tensors.
        state: nest of tensors.
        run: int32 ``(B, N, C)`` or None, the runs of packed sequences: equal numbers are one, and
            the state belongs to run 0.
    """
    count = _count(tensors[0])
    if count < 2:
        return form(*tensors, state, run)
    chunks, outputs = int(tensors[0].shape[1]), []
    cuts = [chunks * at // count for at in range(count + 1)]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        here = None if run is None else run[:, start:stop]
        if start and run is not None:  # The run that was last counts as 0.
            here = here - run[:, start - 1 : start, -1:]
        o, state = form(*(x[:, start:stop] for x in tensors), state, here)
        outputs.append(o)
    return ops.concatenate(outputs, axis=1), state


def _count(x):
    if not in_place.eager(x):
        return 1
    return min(int(x.shape[1]), -(-x.numel() // LARGE))
