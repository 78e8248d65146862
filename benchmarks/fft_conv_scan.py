"""What the long convolution's kernel costs a number against the length, and a picture of it.

    python -m benchmarks.fft_conv_scan --picture docs/fft_conv_costs.svg

Causal convolutions of u ``(B, T, D)`` with k ``(T, D)`` in float32, at powers of two, beside them,
and between them, forward and forward with all gradients; B D T is about the same everywhere. The
least of `--repeats` in each of `--rounds` through all lengths counts, as what else runs on the
machine slows it for seconds. Printed is the largest step from one length to the next.
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


def main():
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        built, _ = library.load()
        kernel = built or library.Library(build(folder))
        lines = {}
        for width in options.widths:
            costs = _least(
                [(each, *_costs(kernel, each, width, options)) for each in _lengths(options, width)]
                for _ in range(options.rounds)
            )
            lines[width] = costs
            for part, name in ((1, "forward"), (2, "forward and backward")):
                steps = [
                    (after[part] / before[part], before[0], after[0])
                    for before, after in zip(costs, costs[1:], strict=False)
                ]
                ratio, before, after = max(steps)
                print(f"D={width}, {name}: at most {ratio:.2f}x, from T={before} to {after}")
    if options.picture:
        _draw(lines, options)
    return 0


def _least(rounds):
    """Return for each length the least of its costs in all rounds."""
    return [
        (rows[0][0], *(min(row[part] for row in rows) for part in (1, 2)))
        for rows in zip(*rounds, strict=True)
    ]


def _lengths(options, width):
    found = set()
    power, longest = options.shortest, min(options.longest, MOST // width)
    while power <= longest:
        found |= {power - 1, power, power + 1}
        found |= {int(power * part) | 1 for part in PARTS[1:]}
        power *= 2
    return sorted(each for each in found if options.shortest <= each <= longest)


def _costs(kernel, length, width, options):
    """Return nanoseconds a number, forward, and with the gradients."""
    rng = np.random.default_rng(length)
    # Around a power of two the batch stays: a filter's own transform is shared by all rows.
    batch = max(1, NUMBERS // (2 ** round(math.log2(length)) * width))
    u, g = rng.standard_normal((2, batch, length, width), np.float32)
    k = rng.standard_normal((length, width), np.float32)
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
    parser.add_argument("--shortest", type=int, default=64)
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
