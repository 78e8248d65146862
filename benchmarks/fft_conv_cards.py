"""What the CUDA convolution moves and computes on some cards, beside the least possible.

    python -m benchmarks.fft_conv_cards

Nothing runs on a card: the schedule that each would follow is asked for, and counted. The least
bytes are u, k and y, once each. What passes leave to each other goes through the second-level cache
where it fits, and otherwise to memory and back. Operations are 5 n log2 n a transform of n complex
points, and 6 a product; times are those bytes and operations at the card's greatest rates.
"""

import math
import tempfile

import numpy as np

from ember_keras.cuda import build, library

CARDS = {
    "A100 80 GB": ((163, 108, 40), 2039, 19.5),
    "H100 SXM": ((227, 132, 50), 3350, 67.0),
    "RTX 4090": ((99, 128, 72), 1008, 82.6),
}
"""KiB of shared memory a block, multiprocessors and MiB of cache; GB/s; float32 TFLOP/s."""

SIZES = (
    *((16, 256, 256), (8, 1024, 256), (4, 4096, 256), (2, 16384, 128)),
    *((2, 65536, 64), (2, 262144, 32), (2, 1048576, 16)),
)
"""B, T, D."""


HEADER = (
    *("card", "B, T, D", "tile", "channels", "launches", "scratch, MB", "least, MB", "memory, MB"),
    *("cache, MB", "GFLOP", "memory, us", "arithmetic, us"),
)


def main():
    """Print a table as markdown."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = library.GpuLibrary(build.build_twin(folder)[0])
        print(f"| {' | '.join(HEADER)} |")
        print(f"|{' --- |' * len(HEADER)}")
        rows = [row(kernel, name, *size) for name in CARDS for size in SIZES]
        for cells in rows:
            print(f"| {' | '.join(cells)} |")


def row(kernel, name, batch, time, width):
    """Return the cells of one card and size, forward in float32."""
    (kib, processors, mib), bandwidth, peak = CARDS[name]
    card = library.Card(kib * 1024, processors, mib << 20)
    u = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (batch, time, width), (0, 0, 0))
    conv = library.describe(u, u[0])
    plan, scratch = kernel.plan(conv, card), kernel.scratch_bytes(conv, card)
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


if __name__ == "__main__":
    main()
