"""What the convolution's kernel costs a number against length and taps, and a picture of it.

    python -m benchmarks.fft_conv_scan --picture docs/fft_conv_costs.svg

Causal convolutions of u ``(B, T, D)`` with k ``(K, D)`` in float32, forward and forward with all
gradients; B D T is about the same everywhere. First K = T, from 1 to a million, then filters of up
to 256 taps at T = 4096: at powers of two, beside them, and between them. The least of `--repeats`
in each of `--rounds` through all sizes counts, as what else runs on the machine slows it for
seconds. Printed are the largest steps from one size to the next; the picture is of K = T.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import common
from ember_keras.cuda import library
from ember_keras.cuda.build import build

PARTS = (1.0, 1.125, 1.25, 1.4, 1.5, 1.65, 1.8)
"""Lengths between two powers of two, in units of the lower one, odd ones; and its neighbours."""

NUMBERS = 1 << 21
"""Of u, about; one long sequence may have up to `MOST`."""

MOST = 1 << 24

FIXED = 4096
"""The length at which the taps change."""

MOST_TAPS = 256


def main():
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        built, _ = library.load()
        kernel = built or library.Library(build(folder))
        lines = {}
        for width in options.widths:
            longest = min(options.longest, MOST // width)
            sizes = [(each, each) for each in _sizes(options.shortest, longest)]
            lines[width] = _scan(kernel, sizes, width, options)
            _print_steps(lines[width], width, "T")
            sizes = [(FIXED, each) for each in _sizes(1, MOST_TAPS)]
            _print_steps(_scan(kernel, sizes, width, options), width, f"T={FIXED}, K")
    if options.picture:
        _draw(lines, options)
    return 0


def _scan(kernel, sizes, width, options):
    """Return for each (T, K) its taps and the least of its costs in all rounds."""
    rounds = [
        [_costs(kernel, length, taps, width, options) for length, taps in sizes]
        for _ in range(options.rounds)
    ]
    return [
        (taps, *(min(costs) for costs in zip(*rows, strict=True)))
        for (_, taps), *rows in zip(sizes, *rounds, strict=True)
    ]


def _print_steps(costs, width, name):
    for part, passes in ((1, "forward"), (2, "forward and backward")):
        steps = [
            (after[part] / before[part], before, after)
            for before, after in zip(costs, costs[1:], strict=False)
        ]
        for (ratio, before, after), way in ((max(steps), "up"), (min(steps), "down")):
            print(
                f"D={width}, {passes}: at most {max(ratio, 1 / ratio):.2f}x {way}, from {name}="
                f"{before[0]} to {after[0]}, {before[part]:.2f} and {after[part]:.2f} ns a number"
            )


def _sizes(least, most):
    found = set()
    power = 1
    while power <= most:
        found |= {power - 1, power, power + 1}
        found |= {int(power * part) | 1 for part in PARTS[1:]}
        power *= 2
    return sorted(each for each in found if least <= each <= most)


def _costs(kernel, length, taps, width, options):
    """Return nanoseconds a number, forward, and with the gradients."""
    # Around a power of two the batch stays: a filter's own transform is shared by all rows.
    batch = max(1, NUMBERS // (2 ** round(math.log2(length)) * width))
    numbers = np.random.default_rng(length).standard_normal(1 << 16, np.float32)
    u, g = np.resize(numbers, (2, batch, length, width))
    k = np.resize(numbers, (taps, width))
    y, out = np.empty_like(u), {"du": np.empty_like(u), "dk": np.empty_like(k)}
    calls = (
        lambda: kernel.forward(u, k, out=y, threads=options.threads),
        lambda: kernel.backward(u, k, g, out=out, threads=options.threads),
    )
    best = [np.inf, np.inf]
    for _ in range(options.repeats + 1):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    forward, backward = (1e9 * each / u.size for each in best)
    return forward, forward + backward


def _draw(lines, options):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "costs", "svg.fonttype": "none", "font.size": 9})
    for part in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        matplotlib.rcParams[part] = "#868e96"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, part, title in zip(axes, (1, 2), ("forward", "forward and backward"), strict=True):
        for (width, costs), colour in zip(lines.items(), ("#d9480f", "#1971c2"), strict=False):
            points = [(row[0], row[part]) for row in costs]
            label = f"D={width}"
            axis.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1)
        axis.set_xscale("log", base=2)
        axis.set(xlabel="T", ylabel="ns a number", title=title, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(options.picture, transparent=True, metadata={"Date": None, "Creator": None})


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shortest", type=int, default=1)
    parser.add_argument("--longest", type=int, default=1 << 20)
    parser.add_argument("--widths", default="16,256", help="D")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="an SVG file to write")
    options = parser.parse_args()
    options.widths = [int(name) for name in common.names(options.widths)]
    return options


if __name__ == "__main__":
    sys.exit(main())
