"""The public function of RWKV-4's weighted average."""

from keras import ops

from ember_keras.ops.engines import checks
from ember_keras.ops.engines.linear_recurrence.engine import linear_recurrence
from ember_keras.ops.engines.running_max import EMPTY, running_max
from ember_keras.ops.engines.timeline import timeline
from ember_keras.ops.tensor.nests import wrap

PARTS = ("numerator", "denominator", "log_scale")
"""The names of the state's tensors, each ``(B, D)``."""


@wrap
def wkv(
    k,
    v,
    log_decay,
    bonus,
    *,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """RWKV-4's average of all values so far, each channel by weights of its own.

    ``y_t = (sum_{i<t} e^{(t-1-i) log_decay + k_i} v_i + e^{u + k_t} v_t) / (the same with v = 1)``
    (Peng et al. 2023, arXiv 2305.13048, equation 16), where the `bonus` u stands in the place of a
    decay for the position itself. Sum and weight are two recurrences with one decay. They are kept
    divided by the largest weight in them, so that keys may be as large as they like. The arithmetic
    is float32 for float16, bfloat16 and float32 inputs.

    Args:
        k: tensor ``(B, T, D)``, the logs of the weights.
        v: tensor ``(B, T, D)``.
        log_decay: tensor ``(D,)``, at most 0: what a position later adds to a weight's log.
        bonus: tensor ``(D,)``.
        initial_state: dict of ``numerator``, ``denominator`` and ``log_scale``, tensors ``(B, D)``,
            or None for an empty past.
        return_state: bool. Also return the state after the last position.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: they
            output 0 and the state passes through.
        segment_ids: int tensor ``(B, T)``. Nothing flows between runs of different ids. The past
            belongs to the first run of the chunk, and the state after it is that of the last.

    Returns:
        ``y`` ``(B, T, D)`` in v's dtype, or ``(y, state)`` with the state in float32 or wider.

    Example:

    >>> import numpy as np
    >>> k, v = np.zeros((1, 3, 2), "float32"), np.ones((1, 3, 2), "float32")
    >>> log_decay, bonus = -np.ones((2,), "float32"), np.zeros((2,), "float32")
    >>> y, state = wkv(k, v, log_decay, bonus, return_state=True)
    >>> tuple(y.shape), sorted(state)
    ((1, 3, 2), ['denominator', 'log_scale', 'numerator'])
    """
    k = checks.floating("k", k, "(B, T, D)")
    v = checks.floating("v", v, "(B, T, D)")
    log_decay = checks.floating("log_decay", log_decay, "(D,)")
    bonus = checks.floating("bonus", bonus, "(D,)")
    time = checks.static("v", v, 1)
    checks.same("the batch of k", k.shape[0], v.shape[0], "v")
    checks.same("the length T of k", k.shape[1], time, "v")
    for name, x in (("k", k), ("log_decay", log_decay), ("bonus", bonus)):
        checks.same(f"the width D of {name}", x.shape[-1], v.shape[2], "v")
    dtype = v.dtype
    line = timeline(v, mask, segment_ids)
    k, v, log_decay, bonus = map(checks.wide, (k, v, log_decay, bonus))
    if line.mask is not None:
        real = ops.expand_dims(line.mask, 2)
        k, v = ops.where(real, k, EMPTY), ops.where(real, v, 0.0)
    sums, scale = _state(initial_state, v)
    faded = ops.zeros_like(k) + log_decay
    before, after = running_max(faded, k, scale, mask=mask, segment_ids=segment_ids)
    decay, written = ops.exp(faded + before - after), ops.exp(k - after)
    if line.mask is not None:
        decay, written = ops.where(real, decay, 1.0), ops.where(real, written, 0.0)
    both = ops.stack([written * v, written], axis=2)
    # Where a run begins, the largest weight before is that of nothing, and so is the decay.
    found, last = linear_recurrence(
        ops.expand_dims(decay, 2), both, initial_state=sums, return_state=True
    )
    past = ops.concatenate([ops.expand_dims(sums, 1), found[:, :-1]], axis=1)
    own = bonus + k
    largest = ops.stop_gradient(ops.maximum(before, own))
    of_past, of_own = ops.exp(before - largest), ops.exp(own - largest)
    y = (of_past * past[:, :, 0] + of_own * v) / (of_past * past[:, :, 1] + of_own)
    if line.mask is not None:
        y = ops.where(real, y, 0.0)
    y = ops.cast(y, dtype)
    state = {"numerator": last[:, 0], "denominator": last[:, 1], "log_scale": after[:, -1]}
    return (y, state) if return_state else y


def _state(state, v):
    """The sums ``(B, 2, D)`` of a state, and the largest weight in them."""
    if state is None:
        nothing = ops.zeros_like(v[:, 0])
        return ops.stack([nothing, nothing], axis=1), nothing + EMPTY
    if not isinstance(state, dict) or sorted(state) != sorted(PARTS):
        received = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"Received an initial_state of {received}; expected a dict of {', '.join(PARTS)}. "
            "Pass the state that an earlier call returned, or None for an empty past."
        )
    shape = (v.shape[0], v.shape[2])
    numerator, denominator, scale = (checks.state(state[key], shape, "(B, D)") for key in PARTS)
    return ops.stack([numerator, denominator], axis=1), scale
