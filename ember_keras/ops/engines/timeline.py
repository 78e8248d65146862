"""Which positions of a chunk are there, and where a packed sequence begins: for recurrences.

A recurrence passes a padded position as if it were not there: the state stays, the output is 0. At
the first real position of another segment the state starts anew. The past belongs to the first run
of a chunk, and the state after the chunk is that of its last run.
"""

from typing import Any, NamedTuple

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops.engines import cache, checks


class Timeline(NamedTuple):
    """The positions of a chunk: tensors ``(B, T)``, or None where there is nothing to say.

    Attributes:
        mask: bool, True at real positions; None where all are.
        run: int32, the number from 0 of the run that each position belongs to; a padded position
            belongs to the run before it. None for one run.
        starts: bool, True where a run other than the first begins, which is at a real position.
    """

    mask: Any = None
    run: Any = None
    starts: Any = None


def timeline(x, mask, segment_ids):
    """Return the `Timeline` of an input ``(B, T, ...)``, its mask and segment ids or None.

    Raises:
        ValueError: `mask` or `segment_ids` is not ``(B, T)``.
    """
    batch, time = x.shape[0], int(x.shape[1])
    mask = checks.rows("mask", mask, batch, time, "bool")
    segment_ids = checks.rows("segment_ids", segment_ids, batch, time, "int32")
    if segment_ids is None or time == 1:
        return Timeline(mask)
    placed = None if mask is None else cache.layout(mask)
    run = cache.runs(segment_ids, placed)
    if placed is not None:
        run = cache.gather(run, placed.inverse)
    begins = run[:, 1:] != run[:, :-1]
    return Timeline(mask, run, pad(begins, ((0, 0), (1, 0)), constant_values=False))


def running_maximum(x):
    """Return the largest of integers >= 0 up to each position of axis 1, in log2(T) steps."""
    step = 1
    while step < x.shape[1]:
        x = ops.maximum(x, pad(x[:, :-step], [[0, 0], [step, 0]]))
        step *= 2
    return x
