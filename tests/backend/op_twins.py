"""Plain numpy twins of the ops in `op_cases`: written for reading, not for speed."""

import numpy as np


def np_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def np_sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pair(z):
    return np.real(z), np.imag(z)


def np_affine_scan(a, b, axis):
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    h, out = np.zeros_like(b[0]), []
    for x, y in zip(a, b, strict=True):
        h = x * h + y
        out.append(h)
    return np.moveaxis(np.stack(out), 0, axis)


def np_attention(q, k, v, allowed):
    k = np.repeat(k, q.shape[2] // k.shape[2], axis=2)
    v = np.repeat(v, q.shape[2] // v.shape[2], axis=2)
    s = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    s = np.where(allowed, s, -1e30)
    return np.einsum("bhts,bshv->bthv", np_softmax(s), v)


def np_depthwise(x, k):
    n = k.shape[0]
    x = np.pad(x, ((0, 0), (n - 1, 0), (0, 0)))
    return np.stack([(x[:, t : t + n] * k[:, :, 0]).sum(1) for t in range(x.shape[1] - n + 1)], 1)


def np_conv(x, k):
    n = k.shape[0]
    windows = [np.einsum("bnc,nco->bo", x[:, t : t + n], k) for t in range(x.shape[1] - n + 1)]
    return np.stack(windows, 1)


def np_s4d_kernel(dt, a, c):
    rate = -np.exp(a) + 1j * np.arange(3)
    return np.real((c[:, None] * np.exp((dt * rate)[:, None] * np.arange(7)[None])).sum(0))


def np_complex_chain(x, y):
    z = x + 1j * y
    z = np.exp(z * 0.3) * np.conj(z) + z**2
    return z.real, z.imag, np.abs(z)


def np_fft_convolution(u, k):
    return np.stack([np.convolve(a, k)[: u.shape[-1]] for a in u])


def np_scan(h, x):
    out = []
    for row in x:
        out.append(h * row)
        h = np.tanh(h + row)
    return np.stack(out)


def repeated(fn, x, times):
    for _ in range(times):
        x = fn(x)
    return x
