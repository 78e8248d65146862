"""What the CUDA convolution moves and computes on some cards, beside the least possible.

    python -m benchmarks.fft_conv_cards

Nothing runs on a card: the schedule that each would follow is asked for, and counted. The least
bytes are u, k and y, once each. What passes leave to each other goes through the second-level cache
where it fits, and otherwise to memory and back. Operations are 5 n log2 n a transform of n complex
points, and 6 a product; times are those bytes and operations at the card's greatest rates.

In float16, transforms of more than 256 points in one tile make 8 of their levels of 256 points as
products of matrices: 24 of (16, 16) times (16, 8) in 256 points, beside 14 ordinary operations a
point for sums, differences, factors and the splitting of numbers.
"""

import math
import tempfile

import numpy as np

from ember_keras.cuda import build, library

CARDS = {
    "A100 80 GB": ((163, 108, 40), 2039, 19.5, 312.0),
    "H100 SXM": ((227, 132, 50), 3350, 67.0, 989.0),
    "RTX 4090": ((99, 128, 72), 1008, 82.6, 165.2),
}
"""KiB of shared memory a block, multiprocessors and MiB of cache; GB/s; TFLOP/s in float32, and of
tensor cores on 16 bits that sum in float32."""

SIZES = (
    *((16, 256, 256), (8, 1024, 256), (4, 4096, 256), (2, 16384, 128)),
    *((2, 65536, 64), (2, 262144, 32), (2, 1048576, 16)),
)
"""B, T, D."""


HALF_SIZES = SIZES[:3]
PRODUCTS = 24 * 2 * 16 * 16 * 8 / 256
"""Operations of tensor cores a point and transform."""

HEADER = (
    *("card", "B, T, D", "tile", "channels", "launches", "scratch, MB", "least, MB", "memory, MB"),
    *("cache, MB", "GFLOP", "memory, us", "arithmetic, us"),
)

HALF_HEADER = (
    *("card", "B, T, D", "tile", "channels", "least, MB", "cache, MB", "GFLOP", "left, GFLOP"),
    *("tensor, GFLOP", "memory, us", "arithmetic, us", "left, us", "tensor, us"),
)


def main():
    """Print two tables as markdown."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = library.GpuLibrary(build.build_twin(folder)[0])
        show(HEADER, [row(kernel, name, *size) for name in CARDS for size in SIZES])
        print()
        show(HALF_HEADER, [half_row(kernel, name, *size) for name in CARDS for size in HALF_SIZES])


def show(header, rows):
    """Print one table."""
    print(f"| {' | '.join(header)} |")
    print(f"|{' --- |' * len(header)}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def ask(kernel, name, dtype, batch, time, width):
    """Return the card, and plan and scratch of a forward call."""
    kib, processors, mib = CARDS[name][0]
    card = library.Card(kib * 1024, processors, mib << 20, 1)
    u = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), (batch, time, width), (0, 0, 0))
    conv = library.describe(u, u[0])
    return card, kernel.plan(conv, card), kernel.scratch_bytes(conv, card)


def row(kernel, name, batch, time, width):
    """Return the cells of one card and size, forward in float32."""
    _, bandwidth, peak, _ = CARDS[name]
    card, plan, scratch = ask(kernel, name, np.float32, batch, time, width)
    one = plan.columns == plan.points
    signals, filters = batch * time * width, time * width
    least = 4 * (2 * signals + filters)
    spectrum, points = 8 * plan.points * width, batch * plan.blocks * plan.points * width
    # Spectra are written once and read for each sequence; two tiles write and read their points
    # twice, and the filter's once more.
    between = spectrum + 8 * points
    if not one:
        between += 2 * spectrum + 4 * 8 * points
    fits = scratch <= card.cache_bytes
    memory, cache = (least, between) if fits else (least + between, 0)
    operations = (2 * points + plan.points * width) * 5 * math.log2(plan.points) + 6 * points
    tile = f"{plan.columns}" if one else f"{plan.columns} x {plan.points // plan.columns}"
    numbers = (
        *(scratch / 1e6, least / 1e6, memory / 1e6, cache / 1e6),
        *(operations / 1e9, memory / bandwidth / 1e3, operations / peak / 1e6),
    )
    plain = (tile, str(plan.channels), str(plan.launches))
    return (name, f"{batch}, {time}, {width}", *plain, *(f"{x:.3g}" for x in numbers))


def half_row(kernel, name, batch, time, width):
    """Return the cells of one card and size, forward in float16, on tensor cores and without."""
    _, bandwidth, peak, tensor_peak = CARDS[name]
    _, plan, _ = ask(kernel, name, np.float16, batch, time, width)
    signals, filters = batch * time * width, time * width
    least = 2 * (2 * signals + filters)
    spectrum, points = 8 * plan.points * width, batch * plan.blocks * plan.points * width
    transforms, levels = 2 * points + plan.points * width, math.log2(plan.points)
    operations = transforms * 5 * levels + 6 * points
    left = transforms * (5 * (levels - 8) + 14) + 6 * points if plan.tensor else operations
    products = transforms * PRODUCTS * plan.tensor
    numbers = (
        *(least / 1e6, (spectrum + 8 * points) / 1e6),
        *(operations / 1e9, left / 1e9, products / 1e9, least / bandwidth / 1e3),
        *(operations / peak / 1e6, left / peak / 1e6, products / tensor_peak / 1e6),
    )
    size = f"{batch}, {time}, {width}"
    return (name, size, f"{plan.columns}", f"{plan.channels}", *(f"{x:.3g}" for x in numbers))


if __name__ == "__main__":
    main()
