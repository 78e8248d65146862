"""The long causal convolution of `benchmarks.fft_conv`, by the kernel and by each peer.

A peer is a function `(u, k, g, job) -> (forward, both, read)`: `forward()` gives y, `both()` gives
y and the gradients for u and k of the cotangent g, and `read` makes numpy arrays of either. All
arrays are float32, u and g ``(B, T, D)`` and k ``(T, D)``; transposing is a part of the work
where a peer needs it. The kernel writes to arrays that are there; everybody else, `ek.ops.fft_conv`
too, makes its results anew.
"""

import numpy as np

from benchmarks.common import TOLERANCE, difference, seconds, summary


def _kernel(u, k, g, job):
    from ember_keras.cuda.library import Library

    library, threads = Library(job["library"]), job["threads"]
    y = _aligned(u)
    out = {"du": _aligned(u), "dk": _aligned(k)}
    u, k, g = _aligned(u), _aligned(k), _aligned(g)

    def forward():
        return library.forward(u, k, out=y, threads=threads)

    def both():
        forward()
        library.backward(u, k, g, out=out, threads=threads)
        return y, out["du"], out["dk"]

    return forward, both, lambda found: found


def _aligned(x):
    """A copy that begins where a line of cache does, as the arrays of the frameworks do."""
    raw = np.empty(x.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    y = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def _public(job):
    """`ek.ops.fft_conv` where it is what is timed, else None."""
    if not job["peer"].startswith("ek "):
        return None
    import ember_keras as ek

    return ek.ops.fft_conv


def _numpy(u, k, g, job):
    public = _public(job)
    return lambda: public(u, k), None, lambda found: found


def _torch(u, k, g, job):
    import torch

    torch.set_num_threads(job["threads"])
    turned = job["peer"].endswith("transposed")
    u, k, g = (torch.from_numpy(x) for x in (u, k, g))
    time, public = u.shape[1], _public(job)

    def convolve(u, k):
        if public:
            return public(u, k)
        if turned:
            us = torch.fft.rfft(u.transpose(1, 2).contiguous(), 2 * time)
            ks = torch.fft.rfft(k.t().contiguous(), 2 * time)
            return torch.fft.irfft(us * ks, 2 * time)[..., :time].transpose(1, 2).contiguous()
        us = torch.fft.rfft(u, 2 * time, dim=1)
        return torch.fft.irfft(us * torch.fft.rfft(k, 2 * time, dim=0), 2 * time, dim=1)[:, :time]

    def forward():
        with torch.no_grad():
            return convolve(u, k)

    def both():
        leaves = u.detach().requires_grad_(), k.detach().requires_grad_()
        y = convolve(*leaves)
        y.backward(g)
        return y.detach(), leaves[0].grad, leaves[1].grad

    def read(found):
        return _each(found, lambda x: x.numpy())

    return forward, both, read


def _jax(u, k, g, job):
    import jax
    import jax.numpy as jnp

    turned = job["peer"].endswith("transposed")
    time, public = u.shape[1], _public(job)

    def convolve(u, k):
        if public:
            return public(u, k)
        if turned:
            us = jnp.fft.rfft(jnp.swapaxes(u, 1, 2), 2 * time)
            y = jnp.fft.irfft(us * jnp.fft.rfft(k.T, 2 * time), 2 * time)[..., :time]
            return jnp.swapaxes(y, 1, 2)
        us = jnp.fft.rfft(u, 2 * time, axis=1)
        return jnp.fft.irfft(us * jnp.fft.rfft(k, 2 * time, axis=0), 2 * time, axis=1)[:, :time]

    def gradients(u, k, g):
        y, pull = jax.vjp(convolve, u, k)
        return y, *pull(g)

    u, k, g = (jnp.asarray(x) for x in (u, k, g))
    once, twice = jax.jit(convolve), jax.jit(gradients)

    def forward():
        return once(u, k).block_until_ready()

    def both():
        return jax.block_until_ready(twice(u, k, g))

    return forward, both, lambda found: _each(found, np.asarray)


def _scipy(u, k, g, job):
    from scipy import fft

    workers, time = job["threads"], u.shape[1]

    def spectrum(x, axis):
        return fft.rfft(x, 2 * time, axis=axis, workers=workers)

    def back(x, axis):
        rows = (slice(None),) * axis + (slice(0, time),)
        return fft.irfft(x, 2 * time, axis=axis, workers=workers)[rows]

    def forward():
        return back(spectrum(u, 1) * spectrum(k, 0), 1)

    def both():
        us, ks, gs = spectrum(u, 1), spectrum(k, 0), spectrum(g, 1)
        dk = back((gs * us.conj()).sum(0), 0)
        return back(us * ks, 1), back(gs * ks.conj(), 1), dk

    return forward, both, lambda found: found


def _tensorflow(u, k, g, job):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    time, public = u.shape[1], _public(job)

    def convolve(u, k):
        if public:
            return public(u, k)
        us = tf.signal.rfft(tf.transpose(u, (0, 2, 1)), [2 * time])
        y = tf.signal.irfft(us * tf.signal.rfft(tf.transpose(k), [2 * time]), [2 * time])
        return tf.transpose(y[..., :time], (0, 2, 1))

    u, k, g = (tf.constant(x) for x in (u, k, g))

    @tf.function
    def gradients(u, k, g):
        with tf.GradientTape() as tape:
            tape.watch((u, k))
            y = convolve(u, k)
        return y, *tape.gradient(y, (u, k), output_gradients=g)

    once = tf.function(convolve)
    forward, both = (lambda: once(u, k)), (lambda: gradients(u, k, g))
    return forward, both, lambda found: _each(found, lambda x: x.numpy())


def _mlx(u, k, g, job):
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    time = u.shape[1]
    u, k, g = (mx.array(x) for x in (u, k, g))

    def convolve(u, k):
        us = mx.fft.rfft(u, 2 * time, axis=1)
        return mx.fft.irfft(us * mx.fft.rfft(k, 2 * time, axis=0), 2 * time, axis=1)[:, :time]

    def forward():
        y = convolve(u, k)
        mx.eval(y)
        return y

    def both():
        (y,), (du, dk) = mx.vjp(convolve, (u, k), (g,))
        mx.eval(y, du, dk)
        return y, du, dk

    return forward, both, lambda found: _each(found, np.array)


def _engine_of_mlx(u, k, g, job):
    """`ek.ops.fft_conv` in compiled code, by the kernel or by mlx's FFT."""
    import os

    if job["peer"].startswith("mlx "):
        os.environ["EMBER_KERNELS"] = job["peer"].removeprefix("mlx ")
    import ember_keras as ek

    import mlx.core as mx  # isort: skip

    u, k, g = (mx.array(x) for x in (u, k, g))
    once = mx.compile(lambda u, k: ek.ops.fft_conv(u, k))
    twice = mx.compile(lambda u, k, g: mx.vjp(ek.ops.fft_conv, (u, k), (g,)))

    def forward():
        y = once(u, k)
        mx.eval(y)
        return y

    def both():
        (y,), (du, dk) = twice(u, k, g)
        mx.eval(y, du, dk)
        return y, du, dk

    return forward, both, lambda found: _each(found, np.array)


def _mlx_through_numpy(u, k, g, job):
    """The kernel on views of mlx's computed arrays; its results are copied into mlx."""
    import mlx.core as mx

    u, k, g = (mx.array(x) for x in (u, k, g))
    mx.eval(u, k, g)
    views = [np.array(x, copy=False) for x in (u, k, g)]
    once, twice, _ = _kernel(*views, job)

    def forward():
        return mx.array(once())

    def both():
        return [mx.array(x) for x in twice()]

    return forward, both, lambda found: _each(found, np.array)


def _each(found, f):
    return tuple(f(x) for x in found) if isinstance(found, (tuple, list)) else f(found)


PEERS = {
    "kernel": ("numpy", _kernel),
    "torch": ("torch", _torch),
    "torch transposed": ("torch", _torch),
    "jax": ("jax", _jax),
    "jax transposed": ("jax", _jax),
    "scipy": ("numpy", _scipy),
    "tensorflow": ("tensorflow", _tensorflow),
    "mlx": ("mlx", _mlx),
    "ek numpy": ("numpy", _numpy),
    "ek torch": ("torch", _torch),
    "ek jax": ("jax", _jax),
    "ek tensorflow": ("tensorflow", _tensorflow),
    "ek mlx": ("mlx", _engine_of_mlx),
    "mlx cpu_fft_conv": ("mlx", _engine_of_mlx),
    "mlx complex_fft": ("mlx", _engine_of_mlx),
    "mlx through numpy": ("mlx", _mlx_through_numpy),
}


def measure(job):
    """The times of a peer for one shape, forward and forward with backward, after a check."""
    rng = np.random.default_rng(0)
    batch, time, width = job["batch"], job["time"], job["width"]
    u, g = (rng.standard_normal((batch, time, width), np.float32) for _ in range(2))
    k = rng.standard_normal((time, width), np.float32) / np.float32(time**0.5)
    forward, both, read = PEERS[job["peer"]][1](u, k, g, job)
    found = read(both()) if both else (read(forward()),)
    result = {"worst": _check(read(forward()), found, u, k, g)}
    for name, call in {"forward": forward, "both": both}.items():
        if call is None:  # No gradients on numpy.
            continue
        (first,) = seconds(call, 1)
        repeats = max(3, min(job["repeats"], int(job["seconds"] / max(first, 1e-6))))
        result[name] = summary(seconds(call, repeats))
    return result


def _check(y, found, u, k, g):
    """The largest error a few channels, in units of their scale, against float64."""
    from scipy import fft

    time, points = u.shape[1], 2 * u.shape[1]
    some = slice(0, 2)
    us, gs = (fft.rfft(np.asarray(x[..., some], float), points, axis=1) for x in (u, g))
    ks = fft.rfft(np.asarray(k[:, some], float), points, axis=0)
    expected = (
        fft.irfft(us * ks, points, axis=1)[:, :time],
        fft.irfft(gs * ks.conj(), points, axis=1)[:, :time],
        fft.irfft((gs * us.conj()).sum(0), points, axis=0)[:time],
    )
    wrong = {"y alone": difference(y[..., some], expected[0])}
    for name, x, right in zip(("y", "du", "dk"), found, expected, strict=False):
        wrong[name] = difference(x[..., some], right)
    worst = max(wrong.values())
    if not worst <= TOLERANCE:
        raise ValueError(f"wrong: {wrong}")
    return worst
