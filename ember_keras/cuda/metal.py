"""The long convolution as text in Metal's language, for `mlx.core.fast.metal_kernel`.

No Apple GPU has run it. The tests compile the same text as C++ and run it on the processor, on the
twin of the CUDA kernel.

Real polynomials modulo ``x^{2n} + 1`` are complex ones modulo ``x^n - i``. A threadgroup holds the
n points of a few neighbouring channels in its memory; ``x^m - w^2`` is split into ``x^{m/2} - w``
and ``x^{m/2} + w`` until the factors are linear, two levels a pass, and joined in the same order.
Threads meet between passes alone: outside them a thread keeps to its own points, every THREADS-th,
which are those of its part of the first pass, and of the last one back, too.
Signals lie in slots: slot j is the real part of point j, slot j + n the imaginary part.
"""

import functools

import numpy as np

MOST_POINTS = 4096
"""Complex numbers in the 32 KB of threadgroup memory that every Apple GPU has."""
MOST_CHANNELS, MOST_THREADS, LEAST_POINTS = 32, 256, 16
POSITIONS = ("thread_position_in_threadgroup", "threadgroup_position_in_grid")
"""What the kernels ask of where a thread is: mlx hands over what the text names."""

HEADER = """
inline float2 ember_product(float2 a, float2 b) {
  return float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}
inline float2 ember_conjugate(float2 a) { return float2(a.x, -a.y); }
inline float2 ember_root(const device float* roots, int i) {
  return float2(roots[2 * i], roots[2 * i + 1]);
}

// Splits x^N - i. Block b of a level of 2^s blocks has the root at 2^s + b.
template <int N, int C, int THREADS>
inline void ember_split(threadgroup float2* tile, const device float* roots, int thread) {
  int blocks = 1;
  if ((N & 0x5555) == 0) {  // an odd power of 2
    const float2 w = ember_root(roots, 1);
    for (int i = thread; i < N / 2 * C; i += THREADS) {
      const float2 a = tile[i], b = ember_product(w, tile[i + N / 2 * C]);
      tile[i] = a + b;
      tile[i + N / 2 * C] = a - b;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    blocks = 2;
  }
  for (; blocks < N; blocks *= 4) {
    const int stride = N / blocks / 4 * C;
    for (int i = thread; i < N / 4 * C; i += THREADS) {
      const int block = i / stride, at = i + 3 * block * stride;
      const float2 w = ember_root(roots, blocks + block);
      const float2 v = ember_root(roots, 2 * (blocks + block));
      const float2 a = tile[at], b = tile[at + stride];
      const float2 c = ember_product(w, tile[at + 2 * stride]);
      const float2 d = ember_product(w, tile[at + 3 * stride]);
      const float2 e = ember_product(v, b + d), f = ember_product(v, b - d);
      tile[at] = a + c + e;
      tile[at + stride] = a + c - e;
      tile[at + 2 * stride] = a - c + float2(-f.y, f.x);
      tile[at + 3 * stride] = a - c - float2(-f.y, f.x);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

// Undoes it, times N.
template <int N, int C, int THREADS>
inline void ember_join(threadgroup float2* tile, const device float* roots, int thread) {
  const int first = (N & 0x5555) == 0 ? 2 : 1;
  for (int blocks = N / 4; blocks >= first; blocks /= 4) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const int stride = N / blocks / 4 * C;
    for (int i = thread; i < N / 4 * C; i += THREADS) {
      const int block = i / stride, at = i + 3 * block * stride;
      const float2 w = ember_conjugate(ember_root(roots, blocks + block));
      const float2 v = ember_conjugate(ember_root(roots, 2 * (blocks + block)));
      const float2 p = tile[at], q = tile[at + stride];
      const float2 r = tile[at + 2 * stride], s = tile[at + 3 * stride];
      const float2 ac = p + q, bd = ember_product(v, p - q);
      const float2 a_c = r + s, t = ember_product(v, r - s), b_d = float2(t.y, -t.x);
      tile[at] = ac + a_c;
      tile[at + stride] = bd + b_d;
      tile[at + 2 * stride] = ember_product(w, ac - a_c);
      tile[at + 3 * stride] = ember_product(w, bd - b_d);
    }
  }
  if (first == 2) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float2 w = ember_conjugate(ember_root(roots, 1));
    for (int i = thread; i < N / 2 * C; i += THREADS) {
      const float2 p = tile[i], q = tile[i + N / 2 * C];
      tile[i] = p + q;
      tile[i + N / 2 * C] = ember_product(w, p - q);
    }
  }
}
"""

_START = """
threadgroup float2 tile[{tile}];
const int thread = int(thread_position_in_threadgroup.x);
const int group = int(threadgroup_position_in_grid.x) * {C};
"""
_SPLIT = "ember_split<{N}, {C}, {THREADS}>(tile, roots, thread);\n"
_JOIN = "ember_join<{N}, {C}, {THREADS}>(tile, roots, thread);\n"
_LOAD = """
for (int i = thread; i < {tile}; i += {THREADS}) {{
  const int low = i / {C} - {shift}, high = low + {N}, lane = group + i % {C};
  float2 value = float2(0.0f, 0.0f);
  if (lane < {lanes}) {{
    const size_t first = size_t({batch}) * size_t({size}) * size_t({width}) + size_t({channel});
    const size_t step = size_t({width});
    if (low >= 0 && low < {size}) value.x = float({x}[first + size_t(low) * step]);
    if (high >= 0 && high < {size}) value.y = float({x}[first + size_t(high) * step]);
  }}
  tile[i] = value;
}}
"""
_STORE = """
for (int i = thread; i < {tile}; i += {THREADS}) {{
  const int low = i / {C} - {shift}, high = low + {N}, lane = group + i % {C};
  if (lane < {width}) {{
    const float2 value = tile[i];
    const size_t first = size_t({batch}) * size_t({size}) * size_t({width}) + size_t(lane);
    const size_t step = size_t({width});
    if (low >= 0 && low < {size}) y[first + size_t(low) * step] = OUT(value.x * {scale});
    if (high >= 0 && high < {size}) y[first + size_t(high) * step] = OUT(value.y * {scale});
  }}
}}
"""

_SPECTRUM = """
const int taps = sizes[0], filters = sizes[1];
{load}{split}
for (int i = thread; i < {tile}; i += {THREADS}) {{
  const int lane = group + i % {C};
  if (lane < filters) {{
    const float2 value = tile[i];
    const size_t at = 2 * (size_t(i / {C}) * size_t(filters) + size_t(lane));
    y[at] = value.x * {inverse};
    y[at + 1] = value.y * {inverse};
  }}
}}
"""

_CONVOLVE = """
const int batch = int(threadgroup_position_in_grid.y);
const int size = sizes[0], shift = sizes[1], length = sizes[2], start = sizes[3];
const int width = sizes[4], filters = sizes[5];
{load}{split}
for (int i = thread; i < {tile}; i += {THREADS}) {{
  const int lane = group + i % {C};
  float2 k = float2(0.0f, 0.0f);
  if (lane < width) {{
    const size_t at = 2 * (size_t(i / {C}) * size_t(filters) + size_t(lane / (width / filters)));
    k = float2(spectrum[at], {sign}spectrum[at + 1]);
  }}
  tile[i] = ember_product(tile[i], k);
}}
{join}{store}
"""

_FILTERS = """
const int size = sizes[0], length = sizes[1], start = sizes[2], taps = sizes[3];
const int width = sizes[4], filters = sizes[5], batches = sizes[6];
const int share = width / filters;
float2 sums[{each}], kept[{each}];
for (int p = 0; p < {each}; ++p) sums[p] = float2(0.0f, 0.0f);
for (int pair = 0; pair < batches * share; ++pair) {{
  const int batch = pair / share, own = pair % share;
  {load}{split}
  for (int p = 0; p < {each}; ++p) kept[p] = tile[thread + p * {THREADS}];
  {load_g}{split}
  for (int p = 0; p < {each}; ++p) {{
    sums[p] = sums[p] + ember_product(tile[thread + p * {THREADS}], ember_conjugate(kept[p]));
  }}
}}
for (int p = 0; p < {each}; ++p) tile[thread + p * {THREADS}] = sums[p];
{join}{store}
"""


def points(size, taps, start, length):
    """Return n of a transform that keeps what wraps around out of the window and its gradients."""
    least = max(size + taps - 1 - start, start + length, size, taps)
    return max(LEAST_POINTS, (1 << (least - 1).bit_length()) // 2)


def shape(n, lanes):
    """Return how many channels and threads a threadgroup has, for n points and so many channels."""
    channels = min(MOST_CHANNELS, MOST_POINTS // n, 1 << (lanes - 1).bit_length())
    return channels, min(MOST_THREADS, n * channels // 4)


@functools.cache
def roots(n):
    """Return the roots of all levels ``(n, 2)``: that of block b of 2^s blocks at 2^s + b."""
    angles = np.zeros(n)
    angles[1] = np.pi / 4
    for i in range(
        2, n
    ):  # Halves of x^m - w^2: x^{m/2} - w, and x^{m/2} + w with a root half as far.
        angles[i] = angles[i // 2] / 2 + (i % 2) * np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32")


def source(kind, n, channels, threads):
    """Return the body of a kernel.

    Args:
        kind: ``"spectrum"`` of filters x ``(taps, F)`` into y ``(n, F, 2)``; ``"convolve"`` of x
            ``(B, size, D)`` with a spectrum into y ``(B, length, D)``; ``"correlate"``, the same
            with its conjugate; ``"filters"``, the gradient y ``(taps, F)`` of filters for x
            ``(B, size, D)`` and g ``(B, length, D)``.
        n: int, complex points.
        channels: int, side by side in a threadgroup.
        threads: int, in a threadgroup.
    """
    fixed = {"N": n, "C": channels, "THREADS": threads, "tile": n * channels}

    def text(template, **names):
        return template.format(**fixed, **names)

    steps = {"split": text(_SPLIT), "join": text(_JOIN)}
    inverse = f"{1 / n!r}f"
    signal = {"batch": "batch", "width": "width"}
    filters = {"batch": "0", "width": "filters", "size": "taps", "shift": "0"}
    if kind == "spectrum":
        load = text(_LOAD, x="x", lanes="filters", channel="lane", **filters)
        body = text(_SPECTRUM, load=load, inverse=inverse, **steps)
    elif kind == "filters":
        own = {**signal, "lanes": "filters", "channel": "(lane * share + own)"}
        load = text(_LOAD, x="x", size="size", shift="0", **own)
        load_g = text(_LOAD, x="g", size="length", shift="start", **own)
        store = text(_STORE, scale=inverse, **filters)
        each = n * channels // threads
        body = text(_FILTERS, load=load, load_g=load_g, store=store, each=each, **steps)
    else:
        load = text(
            _LOAD, x="x", size="size", shift="shift", lanes="width", channel="lane", **signal
        )
        store = text(_STORE, size="length", shift="start", scale="1.0f", **signal)
        sign = "-" if kind == "correlate" else ""
        body = text(_CONVOLVE, load=load, store=store, sign=sign, **steps)
    return text(_START) + body
