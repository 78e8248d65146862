"""The long convolution's Metal kernels, as mlx starts them; see `metal_fft_conv`."""

import mlx.core as mx

from ember_keras.cuda import metal
from ember_keras.ops.kernels.gradient import with_gradient

INPUTS = {
    "spectrum": ["x", "roots", "sizes"],
    "convolve": ["x", "spectrum", "roots", "sizes"],
    "correlate": ["x", "spectrum", "roots", "sizes"],
    "filters": ["x", "g", "roots", "sizes"],
}
"""What each kernel reads, by name; `metal.source` says what it makes of it."""

SMALL = 8
"""Numbers in an array below which mlx hands it over as constant memory."""


def run(u, k, d, *, start, length, skip, fft_length):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    (_, size, width), (taps, filters) = u.shape, k.shape
    n = metal.points(size, taps, start, length)

    def spectrum(k):
        return _start("spectrum", n, (k,), (taps, filters), (n, filters, 2), mx.float32)

    def forward(u, k):
        sizes = (size, 0, length, start, width, filters)
        shape = (u.shape[0], length, width)
        return _start("convolve", n, (u, spectrum(k)), sizes, shape, mx.float32), ()

    def backward(inputs, _, g):
        u, k = inputs
        sizes = (length, start, size, 0, width, filters)
        du = _start("correlate", n, (g, spectrum(k)), sizes, u.shape, u.dtype)
        sizes = (size, length, start, taps, width, filters, u.shape[0])
        return du, _start("filters", n, (u, g), sizes, k.shape, k.dtype)

    y = with_gradient(forward, backward, saved=(0, 1))(u, k)
    if d is None:
        return y
    return y + u[:, skip : skip + length].astype(mx.float32) * d.astype(mx.float32)


def _start(kind, n, inputs, sizes, shape, dtype):
    """Return what one kernel writes: an array of a shape and a dtype."""
    per_filter = kind in ("spectrum", "filters")
    lanes = shape[1] if per_filter else shape[2]
    channels, threads = metal.shape(n, lanes)
    # mlx keeps what it compiled by name, and its signatures depend on dtypes and on what is small.
    held = (str(x.dtype).rpartition(".")[2] + "c" * (x.size < SMALL) for x in inputs)
    kernel = mx.fast.metal_kernel(
        name="_".join(("ember_fft_conv", kind, str(n), str(channels), *held)),
        input_names=INPUTS[kind],
        output_names=["y"],
        source=metal.source(kind, n, channels, threads),
        header=metal.HEADER,
    )
    groups = -(-lanes // channels)
    return kernel(
        inputs=[*inputs, mx.array(metal.roots(n)), mx.array(sizes, mx.int32)],
        template=[("OUT", dtype)],
        grid=(groups * threads, 1 if per_filter else shape[0], 1),
        threadgroup=(threads, 1, 1),
        output_shapes=[tuple(shape)],
        output_dtypes=[dtype],
    )[0]
