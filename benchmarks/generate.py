"""Tokens a second, beside transformers with the same weights, and a token's time by position.

    python -m benchmarks.generate
    python -m benchmarks.generate --positions

A prompt of 16 tokens and 128 new ones, the likeliest each, one sequence, float32: the whole call
of `generate` is timed. Each number has a process of its own. Before it is timed, every backend
gives the tokens of transformers' model, whose weights it has, and logits that on the mean of 16
prompts are within 1e-4 of float64, or within 1.5 times what rounding costs transformers; that runs
on PyTorch with its own cache. With --positions: one step of a model of 8 blocks, after so many
positions. Prints the versions, the sizes, the medians and the spread.
"""

import argparse
import sys

from benchmarks import common

SIZES = {"small": (256, 8, 4096), "medium": (512, 12, 8192), "large": (768, 24, 8192)}
"""Width, blocks of Mamba (Llama has half as many of two parts), and tokens."""

MODELS = ("mamba", "llama")
RECURRENT = ("mamba", "mamba2", "lru", "gated_linear_attention", "rwkv7_time_mixer", "lstm")
POSITIONS = (256, 4096, 32768)


def main():
    options = _options()
    common.end_workers_with_us()
    packages = common.packages_of([*options.backends, "torch"])
    print(f"{common.versions(*packages, 'transformers')}; {options.threads} threads\n")
    rows = _positions(options) if options.positions else _peers(options)
    columns = POSITIONS if options.positions else ("tokens/s", "ratio", "check")
    print(common.table(("model", "backend", *map(str, columns)), rows))
    return 0


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", default="jax,torch", help="names, with commas between")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--mixers", default=",".join(RECURRENT), help="of --positions")
    parser.add_argument("--positions", action="store_true")
    parser.add_argument("--new", type=int, default=128, help="new tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--limit", type=float, default=600, help="seconds for one number")
    options = parser.parse_args()
    for name, known in (("backends", None), ("models", MODELS), ("sizes", SIZES), ("mixers", None)):
        given = common.names(getattr(options, name))
        unknown = sorted(set(given) - set(known or given))
        if unknown or not given:
            parser.error(f"--{name} has {', '.join(unknown)}; expected some of {', '.join(known)}")
        setattr(options, name, given)
    return options


def _run(target, job, backend, options):
    job = {**job, "new": options.new, "repeats": options.repeats}
    found = common.run(
        f"benchmarks.generate_work:{target}", job, backend, options.threads, options.limit
    )
    print(f"  {job} {backend}: {found}", file=sys.stderr, flush=True)
    return found


def _peers(options):
    rows = []
    for size in options.sizes:
        for model in options.models:
            job = {"model": model, "size": SIZES[size]}
            peer = _run("peer", job, "torch", options)
            name = f"{model} {size}"
            rows.append((name, "transformers", _rate(peer), "", ""))
            for backend in options.backends:
                ours = _run("ours", job, backend, options)
                ratio = ""
                if "median" in ours and "median" in peer:
                    ratio = f"{ours['median'] / peer['median']:.2f}"
                rows.append((name, backend, _rate(ours), ratio, ours.get("check", "")))
            if "parameters" in peer:
                rows[-len(options.backends) - 1] = (
                    f"{name}, {peer['parameters'] / 1e6:.1f}M",
                    *rows[-len(options.backends) - 1][1:],
                )
    return rows


def _rate(found):
    if "error" in found:
        return found["error"]
    return f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})"


def _positions(options):
    rows = []
    for mixer in options.mixers:
        for backend in options.backends:
            found = _run("positions", {"mixer": mixer, "at": POSITIONS}, backend, options)
            times = found.get("at", {})
            cells = [
                f"{1e3 * times[str(at)]['median']:.2f} ({1e3 * times[str(at)]['min']:.2f} to "
                f"{1e3 * times[str(at)]['max']:.2f}) ms"
                if str(at) in times
                else found.get("error", "")
                for at in POSITIONS
            ]
            rows.append((mixer, backend, *cells))
    return rows


if __name__ == "__main__":
    sys.exit(main())
