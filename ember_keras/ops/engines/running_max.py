"""The largest log weight in a state with exponential gates: what keeps its exponentials finite."""

from keras import ops

from ember_keras.ops.engines import checks
from ember_keras.ops.engines.timeline import timeline

EMPTY = -1e30
"""The largest log weight in a state that holds nothing; finite, so that two of them differ by 0."""


def running_max(log_decay, log_write, initial=None, *, mask=None, segment_ids=None):
    """Return ``m_t = max(m_{t-1} + log_decay_t, log_write_t)`` before and after each position.

    A state kept divided by ``exp(m_t)`` has weights of at most 1: it decays by ``log_decay_t +
    m_{t-1} - m_t`` and is written to with ``log_write_t - m_t`` (the stabiliser of xLSTM, arXiv
    2405.04517, equation 15). What is computed with such a state does not depend on ``m``, so no
    gradient flows through it. It takes log2(T) steps over all positions at once.

    Args:
        log_decay: tensor ``(B, T, ...)``, at most 0.
        log_write: tensor ``(B, T, ...)``.
        initial: tensor ``(B, ...)`` or None for a state that holds nothing.
        mask: bool tensor ``(B, T)`` or None. Padded positions leave m as it is.
        segment_ids: int tensor ``(B, T)`` or None. m starts anew where another run begins.

    Returns:
        ``(before, after)``: ``m_{t-1}`` and ``m_t``, each ``(B, T, ...)``; where a run begins,
        the state before holds nothing.
    """
    log_decay, log_write = (ops.stop_gradient(checks.wide(x)) for x in (log_decay, log_write))
    line, rank = timeline(log_write, mask, segment_ids), len(log_write.shape)
    empty = ops.full_like(log_write, EMPTY)
    largest, passed = log_write, log_decay
    if line.mask is not None:
        real = _spread(line.mask, rank)
        largest, passed = ops.where(real, largest, empty), ops.where(real, passed, 0.0)
    if line.starts is not None:
        passed = ops.where(_spread(line.starts, rank), empty, passed)
    if initial is None:
        initial = empty[:, :1]
    else:
        initial = ops.expand_dims(ops.stop_gradient(checks.wide(initial)), 1)
    largest = ops.concatenate([initial, largest], axis=1)
    passed = ops.concatenate([ops.zeros_like(initial), passed], axis=1)
    step, size = 1, int(largest.shape[1])
    while step < size:
        # Each position has seen `step` positions; now it also sees what they had seen.
        earlier = largest[:, :-step] + passed[:, step:]
        seen = ops.maximum(largest[:, step:], ops.maximum(earlier, EMPTY))
        largest = ops.concatenate([largest[:, :step], seen], axis=1)
        further = ops.maximum(passed[:, step:] + passed[:, :-step], EMPTY)
        passed = ops.concatenate([passed[:, :step], further], axis=1)
        step *= 2
    before, after = largest[:, :-1], largest[:, 1:]
    if line.starts is not None:
        before = ops.where(_spread(line.starts, rank), empty, before)
    return before, after


def _spread(flags, rank):
    return ops.reshape(flags, (-1, flags.shape[1]) + (1,) * (rank - 2))
