"""The public function of the diagonal linear recurrence."""

from keras import ops

from ember_keras.ops import counting, kernels
from ember_keras.ops.engines import checks
from ember_keras.ops.engines.linear_recurrence import parallel
from ember_keras.ops.engines.timeline import timeline
from ember_keras.ops.tensor.nests import wrap


@wrap
@counting.counted(counting.linear_recurrence)
def linear_recurrence(
    a,
    b,
    *,
    log_space=False,
    initial_state=None,
    return_state=False,
    mask=None,
    segment_ids=None,
):
    """The recurrence ``h_t = a_t * h_{t-1} + b_t``, elementwise, real or complex.

    What S5 (arXiv 2208.04933), the LRU (arXiv 2303.06349), RG-LRU (arXiv 2402.19427) and minGRU
    (arXiv 2410.01201) run. Complex numbers are pairs ``(real, imaginary)``, as in `keras.ops.fft`.
    The arithmetic is float32 for float16, bfloat16 and float32 inputs; nothing is divided by a
    product of decays, so a decay of e^-20 a position is as good as any.

    Args:
        a: tensor that broadcasts to `b`, such as ``(B, T, D)``, or ``(D,)`` for decays that do not
            change with time; a pair of them where complex.
        b: tensor ``(B, T, D)`` or ``(B, T, D, K)``; a pair of them where complex.
        log_space: bool. `a` is given as its logarithm; a pair is then ``(log |a|, angle)``.
        initial_state: tensor ``(B, D)`` or ``(B, D, K)`` (a pair where complex), or None for
            zeros.
        return_state: bool. Also return the state after the last position.
        mask: bool tensor ``(B, T)``, True at real positions. Padded positions are not there: they
            output 0 and the state passes through.
        segment_ids: int tensor ``(B, T)``. Nothing flows between runs of different ids. The past
            belongs to the first run of the chunk, and the state after it is that of the last.

    Returns:
        ``h``, of the shape and dtype of `b`, or ``(h, state)`` with the state in float32 or wider.
        Both are pairs where `a` or `b` is one.

    Example:

    >>> import numpy as np
    >>> a = np.full((3,), 0.5, "float32")
    >>> b = np.ones((1, 2, 3), "float32")
    >>> h, state = linear_recurrence(a, b, return_state=True)
    >>> tuple(h.shape), float(state[0, 0])
    ((1, 2, 3), 1.5)
    """
    pair = isinstance(a, tuple | list) or isinstance(b, tuple | list)
    a, b = _parts("a", a, pair), _parts("b", b, pair)
    b = tuple(checks.floating("b", x, _letters(x)) for x in b)
    time = checks.static("b", b[0], 1)
    dtype, shape = b[0].dtype, tuple(b[0].shape)
    for x in b[1:]:
        _same_shape("the imaginary part of b", x, shape)
    a = tuple(_decays(x, b[0]) for x in a)
    line = timeline(b[0], mask, segment_ids)
    a, b = tuple(map(checks.wide, a)), tuple(map(checks.wide, b))
    if line.mask is not None:
        real = _spread(line.mask, len(shape))
        neutral = 0.0 if log_space else 1.0
        a = tuple(_where(real, x, neutral if at == 0 else 0.0) for at, x in enumerate(a))
        b = tuple(_where(real, x, 0.0) for x in b)
    if log_space:
        a = _exponential(a)
    if line.starts is not None:
        a = tuple(_where(_spread(~line.starts, len(shape)), x, 0.0) for x in a)
    h = _state(initial_state, b, pair)
    if time == 1:
        first = parallel.multiply(tuple(x[:, 0] for x in a), h)
        y = tuple(ops.expand_dims(x, 1) + z for x, z in zip(first, b, strict=True))
    else:
        y = parallel.recurrence(a, b, h, choose(a, b))
    state = tuple(x[:, -1] for x in y)
    if line.mask is not None:
        y = tuple(_where(real, x, 0.0) for x in y)
    y = tuple(ops.cast(x, dtype) for x in y)
    y, state = (y, state) if pair else (y[0], state[0])
    return (y, state) if return_state else y


def choose(a, b):
    """Return the form that runs the recurrence: a kernel's, or `parallel.blocked`."""
    request = kernels.request("linear_recurrence", {"b": b[0], "a": a[0]}, complex=len(b) == 2)
    kernel = kernels.choose(request)
    return parallel.blocked if kernel is None else kernel.run


def _parts(name, x, pair):
    if not pair:
        return (x,)
    if not isinstance(x, tuple | list):
        x = ops.convert_to_tensor(x)
        return (x, ops.zeros_like(x))
    if len(x) != 2:
        raise ValueError(
            f"Received {name} as {len(x)} tensors; expected one tensor, or a pair "
            "(real, imaginary). Pass the two parts of a complex number."
        )
    return tuple(x)


def _letters(x):
    return "(B, T, D, K)" if len(ops.shape(x)) == 4 else "(B, T, D)"


def _same_shape(name, x, shape):
    if tuple(x.shape) != shape:
        raise ValueError(
            f"Received {name} of shape {tuple(x.shape)}; expected {shape}, as its real part has. "
            "Make the two parts agree."
        )


def _decays(a, b):
    """`a` with the rank of `b`, each axis of the size that it has there or of size 1."""
    a = ops.convert_to_tensor(a)
    shape, rank = tuple(a.shape), len(b.shape)
    whole = (1,) * (rank - len(shape)) + shape
    fits = len(whole) == rank and all(
        n == 1 or None in (n, m) or n == m for n, m in zip(whole, b.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Received a of shape {shape}; expected one that broadcasts to b, {tuple(b.shape)}. "
            "Add axes of size 1 where the decays do not change."
        )
    a = checks.floating("a", a, f"({', '.join('?' * len(shape))}{',' * (len(shape) == 1)})")
    if len(shape) == rank:
        return a
    return ops.reshape(
        a, (*(1 for _ in range(rank - len(shape))), *(-1 if n is None else n for n in shape))
    )


def _spread(flags, rank):
    return ops.reshape(flags, (-1, flags.shape[1]) + (1,) * (rank - 2))


def _where(flags, x, other):
    return ops.where(flags, x, ops.cast(other, x.dtype))


def _exponential(a):
    size = ops.exp(a[0])
    return (size,) if len(a) == 1 else (size * ops.cos(a[1]), size * ops.sin(a[1]))


def _state(state, b, pair):
    if state is None:
        return tuple(ops.zeros_like(x[:, 0]) for x in b)
    if pair and not (isinstance(state, tuple | list) and len(state) == 2):
        raise ValueError(
            f"Received an initial_state of type {type(state).__name__}; expected a pair "
            "(real, imaginary), as a or b is complex. Pass the state that an earlier call returned."
        )
    shape = (b[0].shape[0], *b[0].shape[2:])
    letters = "(B, D)" if len(shape) == 2 else "(B, D, K)"
    parts = state if pair else (state,)
    return tuple(ops.cast(checks.state(x, shape, letters), b[0].dtype) for x in parts)
