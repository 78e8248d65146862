"""What a pass and a token of every sequence mixer cost against the length, and a picture of it.

    python -m benchmarks.lengths --folder docs/mixers/costs

For each mixer, on one backend: the time of a compiled forward pass of T positions, and of a
compiled `step` after T tokens, as `benchmarks.mixers --step` measures it and after the same check.
Each mixer has a process of its own. `--draw` draws the pictures of the numbers that the folder has
already. The exit status is 1 where a mixer fails.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from benchmarks import common
from benchmarks.mixers import registered_names

LENGTHS = (256, 1024, 4096, 16384)
SMALLER = {"ltc": 64}
"""Mixers whose cost grows with the square of their neurons are measured at this width."""

BESIDE = "attention"
"""The mixer that every picture shows beside its own."""

COLOUR, GREY = "#d9480f", "#868e96"


def main():
    common.end_workers_with_us()
    options = _options()
    path = options.folder / "measured.json"
    found = json.loads(path.read_text()) if path.exists() else {"mixers": {}}
    failed = []
    if not options.draw:
        found["heading"] = (
            f"{common.versions(*common.packages_of([options.backend]))}; {options.backend}, "
            f"{options.threads} threads, float32, B=1, D={options.width}"
        )
        print(found["heading"])
        for mixer in options.mixers:
            width = min(options.width, SMALLER.get(mixer, options.width))
            job = {"mixer": mixer, "batch": 1, "width": width, "lengths": options.lengths}
            job |= {"repeats": options.repeats, "tokens": options.tokens}
            result = common.run(
                "benchmarks.mixer_work:lengths",
                job,
                options.backend,
                options.threads,
                options.limit,
            )
            if "error" in result:
                failed.append(f"{mixer}: {result['error']}")
                found["mixers"].pop(mixer, None)
            else:
                found["mixers"][mixer] = {"width": width, **result}
            print(f"{mixer}: {_said(result)}", flush=True)
            path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    for mixer, costs in found["mixers"].items():
        _draw(mixer, costs, found["mixers"].get(BESIDE), options.folder / f"{mixer}.svg")
    print("\n".join(f"failed: {each}" for each in failed), end="\n" if failed else "")
    return 1 if failed else 0


def _options():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lengths", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, required=True, help="of the numbers and pictures")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument("--mixers", help="names, with commas between; all that are registered")
    parser.add_argument("--backend", default="jax", choices=sorted(common.PACKAGES))
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5, help="of which the median is")
    parser.add_argument("--tokens", type=int, default=16, help="tokens in a repeat of `step`")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--limit", type=float, default=600, help="seconds for one mixer")
    options = parser.parse_args()
    options.lengths = sorted({int(each) for each in common.names(options.lengths)})
    if not options.lengths or options.lengths[0] < 2:
        parser.error("--lengths expects numbers of at least 2, such as 256,16384")
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.draw:
        names = registered_names(options.backend, options.threads)
        options.mixers = common.names(options.mixers) if options.mixers else names
        unknown = sorted(set(options.mixers) - set(names))
        if unknown:
            parser.error(f"--mixers has {', '.join(unknown)}; expected some of {', '.join(names)}")
    return options


def _said(result):
    if "error" in result:
        return result["error"]
    parts = [_line("pass", result["pass"]), _line("step", result["step"])]
    return "; ".join(part for part in parts if part)


def _line(name, times):
    each = [f"{1000 * seconds:.3g} ms at {length}" for length, seconds in times.items()]
    return f"{name} {', '.join(each)}" if each else ""


def _draw(mixer, costs, beside, path):
    import matplotlib

    matplotlib.use("svg")
    # The same numbers make the same file; letters stay letters; grey is read on white and on black.
    matplotlib.rcParams.update({"svg.hashsalt": "costs", "svg.fonttype": "none", "font.size": 9})
    for part in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        matplotlib.rcParams[part] = GREY
    from matplotlib import pyplot

    lines = [(mixer, costs, COLOUR)]
    if beside is not None and mixer != BESIDE:
        lines.append((BESIDE, beside, GREY))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7.2, 2.6), layout="constrained")
    _panel(left, [(*line, line[1]["pass"]) for line in lines], "a forward pass of T positions")
    title = "a token after T tokens" if costs["step"] else "a token: it has no step"
    _panel(right, [(*line, line[1]["step"]) for line in lines], title)
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _panel(axis, lines, title):
    seen, ticks = [], set()
    for name, costs, colour, times in lines:
        points = sorted((int(length), 1000 * each) for length, each in times.items())
        if not points:
            continue
        label = f"{name}, D={costs['width']}"
        axis.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=3.5)
        seen += [each for _, each in points]
        ticks |= {length for length, _ in points}
    axis.set_title(title, fontsize=9)
    axis.set(xlabel="T", ylabel="ms", xscale="log", yscale="log")
    # At least a factor of ten, so that noise does not look like growth.
    middle = math.sqrt(min(seen) * max(seen))
    half = max(max(seen) / min(seen), 10) ** 0.5 * 1.3
    axis.set_ylim(middle / half, middle * half)
    axis.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
