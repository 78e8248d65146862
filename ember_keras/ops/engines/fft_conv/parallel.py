"""The long convolution in `keras.ops`: by FFT, and by shifts for short filters.

`windowed` computes a window ``[start, start + length)`` of the full convolution of a signal with
a filter; every form of the engine is one or more such windows.
"""

from keras import ops

from ember_keras.backend import pad
from ember_keras.ops import kernels
from ember_keras.ops.engines import checks
from ember_keras.ops.kernels.gradient import is_differentiated_again, with_gradient
from ember_keras.ops.kernels.shared_filters import by_channel, by_filter, repeated

SHORT = 16
"""Taps up to which the filter is applied by shifts and not by FFT."""

BLOCK = 16
"""Length of the blocks in which `segmented` applies the filter by shifts."""


def fft_length(least):
    """Return the smallest even number of the form ``2^a 3^b 5^c`` that is at least `least`."""
    best = 2
    while best < least:
        best *= 2
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 2 * three
            while two < least:
                two *= 2
            best = min(best, two)
            three *= 3
        five *= 5
    return best


def windowed(u, k, start, length, d=None, skip=0, gate_in=None, gate_out=None):
    """Return ``y_t = sum_s k_s u_{t-s}`` for ``start <= t < start + length``.

    With gates the signal is ``gate_in u``, and the result is multiplied by `gate_out`.

    This is the one place where a kernel may take over.

    Args:
        u: tensor ``(B, N, D)``, 0 outside ``0 .. N - 1``.
        k: tensor ``(taps, F)``: D / F neighbouring channels share a filter.
        start: int >= 0.
        length: int >= 1.
        d: tensor ``(D,)`` or None: ``d u_{skip + j}`` is added to the j-th output.
        skip: int.
        gate_in: tensor ``(B, N, D)`` in u's dtype, or None.
        gate_out: tensor ``(B, length, D)`` in u's dtype, or None.

    Returns:
        ``(B, length, D)``, float32 or float64, or in u's dtype where a kernel computed it.
    """
    size, taps = int(u.shape[1]), int(k.shape[0])
    low, high = max(0, start - size + 1), min(taps, start + length)
    if (low, high) != (0, taps):  # A slice's gradient is a copy.
        k, start = k[low:high], start - low
    if low < high:
        n = _circular(size, high - low, start, length)
        request = kernels.request("fft_conv", {"u": u, "k": k}, start=start, length=length)
        kernel = kernels.choose(request)
        if kernel is not None:
            options = {"start": start, "length": length, "skip": skip, "fft_length": n}
            if "gate_in" in kernel.fuses:
                options |= {"gate_in": gate_in, "gate_out": gate_out}
                return kernel.run(u, k, d, **options)
            u = u if gate_in is None else u * gate_in
            return _gated(checks.wide(kernel.run(u, k, d, **options)), gate_out)
    u, k = checks.wide(u), checks.wide(k)
    u = _gated(u, gate_in)
    if low >= high:
        y = ops.zeros_like(ops.repeat(u[:, :1], length, axis=1))
    elif high - low <= SHORT:
        y = _shifted(u, repeated(k, int(u.shape[2])), start, length)
    else:
        y = _transformed(u, k, start, length, n)
    y = y if d is None else y + u[:, skip : skip + length] * checks.wide(d)
    return _gated(y, gate_out)


def _gated(x, gate):
    return x if gate is None else x * checks.wide(gate)


def segmented(u, k, runs):
    """Return the causal convolution of u ``(B, T, D)`` with k ``(taps, F)`` inside runs ``(B, T)``.

    Divide and conquer: what flows from the left to the right half of a block of ``2 L`` positions
    flows inside the one run that crosses its middle, so one FFT a block gives it exactly. Blocks
    of every size up to T cost ``O(T log^2 T)``.
    """
    u, k = checks.wide(u), checks.wide(k)
    time, taps, width = int(u.shape[1]), int(k.shape[0]), int(u.shape[2])
    if taps <= SHORT:
        return _masked_shifts(u, repeated(k, width), runs, time)
    padded = BLOCK
    while padded < time:
        padded *= 2
    u = pad(u, ((0, 0), (0, padded - time), (0, 0)))
    runs = pad(runs, ((0, 0), (0, padded - time)), constant_values=-1)
    y = _masked_shifts(u, repeated(k[:BLOCK], width), runs, BLOCK)
    half = BLOCK
    while half < padded:
        reach = min(half, taps - 1)
        blocks = ops.reshape(u, (-1, 2 * half, width))
        ids = ops.reshape(runs, (-1, 2 * half))
        crossing = ids == ids[:, half : half + 1]
        left = slice(half - reach, half)
        right = slice(half, half + reach)
        source = _where(crossing[:, left], blocks[:, left])
        flow = windowed(source, k[: 2 * reach], reach, reach)
        flow = _where(crossing[:, right], flow)
        flow = pad(flow, ((0, 0), (half, half - reach), (0, 0)))
        y = y + ops.reshape(flow, (-1, padded, width))
        half *= 2
    return y[:, :time]


def _where(flags, x):
    return ops.where(flags[:, :, None], x, ops.zeros_like(x))


def _masked_shifts(u, k, runs, block):
    """Return the causal convolution by shifts, inside runs and inside blocks of a length."""
    time, width = int(u.shape[1]), int(u.shape[2])
    folded = ops.reshape(u, (-1, block, width))
    ids = ops.reshape(runs, (-1, block))
    y = folded * k[0]
    for s in range(1, min(int(k.shape[0]), block)):
        same = ids[:, s:] == ids[:, :-s]
        term = _where(same, folded[:, :-s] * k[s])
        y = y + pad(term, ((0, 0), (s, 0), (0, 0)))
    return ops.reshape(y, (-1, time, width))


def _shifted(u, k, start, length):
    size, taps = int(u.shape[1]), int(k.shape[0])
    before = max(0, taps - 1 - start)
    after = max(0, start + length - size)
    u = pad(u, ((0, 0), (before, after), (0, 0)))
    y = None
    for s in range(taps):
        first = start + before - s
        term = u[:, first : first + length] * k[s]
        y = term if y is None else y + term
    return y


def _circular(size, taps, start, length):
    """Return a length of FFT that keeps what wraps around out of the window and its gradients."""
    return fft_length(max(size + taps - 1 - start, start + length, size, taps))


def _transformed(u, k, start, length, n):
    """Return `windowed` by FFT, with a gradient made of real FFTs like the value."""
    size, (taps, filters) = int(u.shape[1]), (int(n) for n in k.shape)

    def spectra(u, k):
        kr, ki = (x[:, None] for x in ops.rfft(ops.transpose(k), fft_length=n))
        return (*ops.rfft(by_filter(u, filters), fft_length=n), kr, ki)

    def forward(u, k):
        ur, ui, kr, ki = spectra(u, k)
        y = ops.irfft((ur * kr - ui * ki, ur * ki + ui * kr), fft_length=n)
        return by_channel(y[..., start : start + length]), (ur, ui, kr, ki)

    def backward(inputs, kept, cotangent):
        ur, ui, kr, ki = spectra(*inputs) if is_differentiated_again() else kept
        g = pad(by_filter(cotangent, filters), ((0, 0), (0, 0), (0, 0), (start, 0)))
        gr, gi = ops.rfft(g, fft_length=n)
        du = ops.irfft((gr * kr + gi * ki, gi * kr - gr * ki), fft_length=n)
        wr = ops.sum(gr * ur + gi * ui, axis=(0, 2))
        wi = ops.sum(gi * ur - gr * ui, axis=(0, 2))
        dk = ops.irfft((wr, wi), fft_length=n)
        return by_channel(du[..., :size]), ops.transpose(dk[:, :taps])

    return with_gradient(forward, backward, saved=(0, 1))(u, k)
