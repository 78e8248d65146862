"""The public function of a diagonal recurrence that does not change with time."""

from keras import ops

from ember_keras.ops import counting
from ember_keras.ops.engines import cache, checks, chunks, modes
from ember_keras.ops.engines.fft_conv import fft_conv
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.diagonal_state_space)
def diagonal_state_space(
    u,
    a,
    c,
    d=None,
    *,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """A diagonal state-space model whose decays and weights do not change with time.

    ``h_t = exp(a) * h_{t-1} + u_t``, ``y_t = Re(sum_n c_n h_{t,n}) + d * u_t``, with a state of N
    complex numbers a channel (S4D, arXiv 2206.11893, equation 2, with its B in `c`). A whole pass
    is a convolution with ``k_s = Re(sum_n c_n exp(s a_n))`` by `fft_conv`; the states before and
    after it are matrix products, 64 positions at a time. No array ``(B, T, D, N)`` is made. The
    arithmetic is float32 for float16, bfloat16 and float32 inputs.

    Args:
        u: tensor ``(B, T, D)``.
        a: pair of tensors ``(D, N)``: the log of the decay, finite and at most 0, and the angle.
        c: pair of tensors ``(D, N)``: the real and the imaginary part.
        d: tensor ``(D,)`` or None, the skip.
        initial_state: pair of tensors ``(B, D, N)``, real and imaginary, or None for zeros.
        return_state: bool. Also return the state after the last position.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: they
            output 0 and the state passes through.
        segment_ids: int tensor ``(B, T)``. Nothing flows between runs of different ids. The past
            belongs to the first run of the chunk, and the state after it is that of the last.

    Returns:
        ``y`` ``(B, T, D)`` in u's dtype, or ``(y, state)`` with the state, a pair, in float32 or
        wider.

    Example:

    >>> import numpy as np
    >>> u, one = np.ones((2, 10, 4), "float32"), np.ones((4, 3), "float32")
    >>> y, state = diagonal_state_space(u, (-one, one), (one, one), return_state=True)
    >>> tuple(y.shape), tuple(state[0].shape)
    ((2, 10, 4), (2, 4, 3))
    """
    u = checks.floating("u", u, "(B, T, D)")
    time, dtype = checks.static("u", u, 1), u.dtype
    a, c = _pair("a", a, u), _pair("c", c, u)
    checks.same("the state width N of c", c[0].shape[1], a[0].shape[1], "a")
    u = checks.wide(u)
    mask = checks.rows("mask", mask, u.shape[0], time, "bool")
    segment_ids = checks.rows("segment_ids", segment_ids, u.shape[0], time, "int32")
    h = None if initial_state is None else _state(initial_state, u, a)
    if d is not None:
        d = checks.wide(checks.floating("d", d, "(D,)"))
        checks.same("the width D of d", d.shape[0], u.shape[2], "u")
    if time == 1:
        y, h = _step(u, a, c, d, h, mask)
    else:
        y, h = _pass(u, a, c, d, h, mask, segment_ids, return_state)
    y = ops.cast(y, dtype)
    return (y, h) if return_state else y


def _step(u, a, c, d, h, mask):
    """Return one position, straight from the equation."""
    if mask is not None:
        u = cache.keep(u, mask)
    added = u[:, 0, :, None]
    grown = added * ops.ones_like(a[0]), added * ops.zeros_like(a[0])
    if h is not None:
        past = modes.times(h, modes.exponential(a))
        grown = grown[0] + past[0], past[1]
        if mask is not None:
            grown = tuple(
                ops.where(mask[:, :, None], x, old) for x, old in zip(grown, h, strict=True)
            )
    y = ops.sum(grown[0] * c[0] - grown[1] * c[1], axis=2)[:, None]
    if d is not None:
        y = y + d * u
    return (y if mask is None else cache.keep(y, mask)), grown


def _pass(u, a, c, d, h, mask, segment_ids, return_state):
    time = int(u.shape[1])
    y = fft_conv(u, modes.taps(a, c, time), d, mask=mask, segment_ids=segment_ids)
    if h is None and not return_state:
        return y, None
    # From here on the real positions of a row come first, and nothing after them.
    placed = None if mask is None else cache.layout(mask)
    run = None if segment_ids is None else cache.runs(segment_ids, placed)
    if h is not None:
        late = _free(h, a, c, time)
        late = late if run is None else cache.keep(late, run == 0)
        y = y + (late if placed is None else cache.uncompact(late, placed))
    if not return_state:
        return y, None
    count = ops.full((1,), time, "int32")
    if placed is not None:
        u, count = cache.compact(u, placed), placed.count
    if run is not None:
        u = cache.keep(u, run == run[:, -1:])
    since = ops.flip(u, axis=1)
    if placed is not None:
        # Slot q is the position with q real ones after it.
        slot = count[:, None] - 1 - ops.arange(time, dtype="int32")[None, :]
        since = cache.keep(cache.gather(u, ops.maximum(slot, 0)), slot >= 0)
    new = _gathered(since, a)
    if h is not None:
        past = modes.times(h, modes.power(a, count[:, None, None]))
        if run is not None:
            only = (run[:, -1] == 0)[:, None, None]
            past = tuple(ops.where(only, x, ops.zeros_like(x)) for x in past)
        new = new[0] + past[0], new[1] + past[1]
    return y, new


def _free(h, a, c, time):
    """Return ``Re(sum_n c_n exp((1 + p) a_n) h_n)`` for p < time, ``(B, time, D)``."""
    size = chunks.size_for(time)
    coarse, fine = modes.powers(a, -(-time // size), size), modes.powers(a, size, 1, 1)
    before = modes.times((h[0][:, None], h[1][:, None]), coarse)
    fine = modes.times(c, fine)
    before = ops.concatenate([before[0], -before[1]], axis=-1)
    y = ops.einsum("bidn,jdn->bijd", before, ops.concatenate(fine, axis=-1))
    return ops.reshape(y, (-1, int(y.shape[1]) * size, int(y.shape[3])))[:, :time]


def _gathered(since, a):
    """Return ``sum_q exp(q a) since_q``, the state that ``(B, T, D)`` leaves, a pair."""
    size = chunks.size_for(int(since.shape[1]))
    since = chunks.pad_to(since, size)
    count, states = int(since.shape[1]) // size, int(a[0].shape[1])
    since = ops.reshape(since, (-1, count, size, int(since.shape[2])))
    fine = ops.concatenate(modes.powers(a, size, 1), axis=-1)
    inside = ops.einsum("bijd,jdn->bidn", since, fine)
    inside = inside[..., :states], inside[..., states:]
    parts = modes.times(inside, modes.powers(a, count, size))
    return tuple(ops.sum(x, axis=1) for x in parts)


def _pair(name, x, u):
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise ValueError(
            f"Received {name} of type {type(x).__name__}; expected a pair of tensors (D, N). Pass "
            "the two parts of a complex number."
        )
    x = tuple(checks.wide(checks.floating(name, part, "(D, N)")) for part in x)
    checks.same(f"the width D of {name}", x[0].shape[0], u.shape[2], "u")
    checks.same(f"the width D of the second part of {name}", x[1].shape[0], u.shape[2], "u")
    checks.same(f"the width N of the second part of {name}", x[1].shape[1], x[0].shape[1], name)
    return x


def _state(state, u, a):
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise ValueError(
            f"Received an initial_state of type {type(state).__name__}; expected a pair "
            "(real, imaginary). Pass the state that an earlier call returned."
        )
    shape = (u.shape[0], *a[0].shape)
    return tuple(ops.cast(checks.state(x, shape, "(B, D, N)"), u.dtype) for x in state)
