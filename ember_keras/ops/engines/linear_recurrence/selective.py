"""The public function of Mamba's selective scan."""

from keras import ops

from ember_keras.ops import counting, kernels
from ember_keras.ops.engines import checks
from ember_keras.ops.engines.linear_recurrence import engine, parallel
from ember_keras.ops.engines.timeline import timeline
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.selective_scan)
def selective_scan(
    x,
    delta,
    a,
    b,
    c,
    d=None,
    *,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """Mamba's scan, whose decays, inputs and outputs are chosen by the sequence itself.

    ``h_t = exp(delta_t a) * h_{t-1} + (delta_t x_t) b_t``, ``y_t = h_t c_t + d * x_t``, with a
    state of K numbers a channel (Gu and Dao 2023, arXiv 2312.00752, section 3). No array
    ``(B, T, D, K)`` is made: the gradient keeps the states at the borders of chunks and makes the
    others again. The arithmetic is float32 for float16, bfloat16 and float32 inputs.

    Args:
        x: tensor ``(B, T, D)``.
        delta: tensor ``(B, T, D)``, the step sizes, >= 0.
        a: tensor ``(D, K)``, the rates, <= 0.
        b: tensor ``(B, T, K)``.
        c: tensor ``(B, T, K)``.
        d: tensor ``(D,)`` or None, the skip.
        initial_state: tensor ``(B, D, K)`` or None for zeros.
        return_state: bool. Also return the state after the last position.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: they
            output 0 and the state passes through.
        segment_ids: int tensor ``(B, T)``. Nothing flows between runs of different ids. The past
            belongs to the first run of the chunk, and the state after it is that of the last.

    Returns:
        ``y`` ``(B, T, D)`` in x's dtype, or ``(y, state)`` with the state in float32 or wider.

    Example:

    >>> import numpy as np
    >>> x = np.ones((2, 10, 4), "float32")
    >>> a, b = -np.ones((4, 3), "float32"), np.ones((2, 10, 3), "float32")
    >>> y, state = selective_scan(x, 0.1 * x, a, b, b, return_state=True)
    >>> tuple(y.shape), tuple(state.shape)
    ((2, 10, 4), (2, 4, 3))
    """
    x = checks.floating("x", x, "(B, T, D)")
    delta = checks.floating("delta", delta, "(B, T, D)")
    a = checks.floating("a", a, "(D, K)")
    b = checks.floating("b", b, "(B, T, K)")
    c = checks.floating("c", c, "(B, T, K)")
    d = None if d is None else checks.floating("d", d, "(D,)")
    time = checks.static("x", x, 1)
    width, state_dim = x.shape[2], a.shape[1]
    checks.same("the width D of a", a.shape[0], width, "x")
    checks.same("the width D of delta", delta.shape[2], width, "x")
    if d is not None:
        checks.same("the width D of d", d.shape[0], width, "x")
    for name, z in (("delta", delta), ("b", b), ("c", c)):
        checks.same(f"the length T of {name}", z.shape[1], time, "x")
    for name, z in (("b", b), ("c", c)):
        checks.same(f"the state width K of {name}", z.shape[2], state_dim, "a")
    dtype = x.dtype
    line = timeline(x, mask, segment_ids)
    x, delta, a, b, c = map(checks.wide, (x, delta, a, b, c))
    if line.mask is not None:
        # A step of size 0 leaves the state as it is.
        real = ops.expand_dims(line.mask, 2)
        x, delta, b, c = (ops.where(real, z, ops.zeros_like(z)) for z in (x, delta, b, c))
    keep = None if line.starts is None else ops.cast(~line.starts, x.dtype)
    rates = ops.transpose(a)
    if initial_state is None:
        h = ops.zeros_like(x[:, 0, None, :] * rates)
    else:
        h = checks.state(initial_state, (x.shape[0], width, state_dim), "(B, D, K)")
        h = ops.transpose(ops.cast(h, x.dtype), (0, 2, 1))
    if time == 1:
        y, h = _one(x, delta, rates, b, c, h)
    else:
        kernel = kernels.choose(kernels.request("selective_scan", {"x": x, "a": a}))
        if kernel is not None:
            y, h = kernel.run(x, delta, rates, b, c, h, keep)
        else:
            run = engine.choose((h,), (ops.expand_dims(h, 1),))
            y, h = parallel.selective(x, delta, rates, b, c, h, keep, run)
    if d is not None:
        y = y + checks.wide(d) * x
    y = ops.cast(y, dtype)
    return (y, ops.transpose(h, (0, 2, 1))) if return_state else y


def _one(x, delta, rates, b, c, h):
    """One position: no chunks, and the library's own gradient."""
    added = (delta * x) * ops.transpose(b, (0, 2, 1))
    h = ops.exp(delta * rates) * h + added
    return ops.sum(h * ops.transpose(c, (0, 2, 1)), axis=1, keepdims=True), h
