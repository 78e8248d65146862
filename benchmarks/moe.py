"""The speed of a mixture of experts: forward and backward, beside other packages and a dense layer.

    python -m benchmarks.moe
    python -m benchmarks.moe --experts 64 --backends jax,torch

One layer on 8,192 tokens of width 256, experts that are gated perceptrons of 512 hidden units, two
for each token, float32: the output, and the gradients for the tokens and every weight. `dense` is a
gated perceptron with as many weights as a token meets, so 1,024 hidden units. Peers are the blocks
of transformers for Mixtral and Qwen3-MoE with our weights, as they come and with their grouped
products; and that of keras_hub, where it is installed, which runs every expert on every token: with
256 experts that takes more memory than most machines have, and it is left out. numpy predicts, so
its time is that of the output alone. Every number comes from a process of its own, with the same
number of threads, and is the median of the repeats, or of as many as fit 10 seconds. Before it is
timed, its output and gradients must be those that the first process gave, by their products with
random directions. Memory is the most that the process has in a step, less what it had before the
first one, for as many tokens and for twice as many; it is counted by Linux.

The exit status is 1 where a process fails, or finds other numbers than the first.
"""

import argparse
import sys

from benchmarks import common
from benchmarks.moe_work import PEERS

MOST_DENSE = 64
"""Experts of a block that runs all of them on every token."""
BACKENDS = ("jax", "torch", "tensorflow", "mlx", "numpy")


def main():
    common.end_workers_with_us()
    options = _options()
    packages = common.packages_of(options.backends)
    if options.peers:
        more = ("torch", "transformers", "jax", "keras-hub")
        packages += [name for name in more if name not in packages]
    print(common.versions(*packages))
    print(
        f"{options.tokens} tokens, D={options.width}, F={options.hidden}, k={options.top_k}, "
        f"float32, {options.threads} threads, ms, medians of {options.repeats} (least to most)\n"
    )
    failures = []
    kinds = [("dense", backend) for backend in options.backends]
    kinds += [("mixture", backend) for backend in options.backends]
    kinds += [(peer, "jax" if peer == "keras_hub" else "torch") for peer in options.peers]
    kinds.sort(key=lambda kind: kind[1] == "numpy")  # It has no gradients to compare with.
    rows, dense, first = [], {}, {}
    for kind, backend in kinds:
        for experts in [1] if kind == "dense" else options.experts:
            if kind == "keras_hub" and experts > MOST_DENSE:
                continue
            found = _measure(kind, backend, experts, options)
            if "error" not in found:
                _compare(found, first, (kind == "dense", experts))
            if "error" in found:
                if kind == "keras_hub" and "No module named" in found["error"]:
                    print("keras_hub is not installed")
                    break
                failures.append(f"{kind} on {backend}, E={experts}: {found['error']}")
                rows.append([kind, backend, experts, found["error"], "", "", ""])
                continue
            time = found["time"]
            if kind == "dense":
                dense[backend] = time["median"]
            ratio = time["median"] / dense[backend] if backend in dense else None
            shown = (
                f"{1e3 * time['median']:.0f} ({1e3 * time['min']:.0f} to {1e3 * time['max']:.0f})"
            )
            memory = [f"{found[key] / 2**20:.0f}" for key in ("memory", "memory_twice")]
            rows.append(
                [kind, backend, experts, shown, "" if ratio is None else f"{ratio:.2f}", *memory]
            )
            print(f"  {kind} on {backend}, E={experts}: {shown} ms", file=sys.stderr, flush=True)
    columns = ("layer", "backend", "E", "ms", "of dense", "peak MiB", "twice the tokens, MiB")
    print(common.table(columns, rows))
    for line in failures:
        print(line)
    return 1 if failures else 0


def _measure(kind, backend, experts, options):
    job = {"kind": kind, "experts": experts, "repeats": options.repeats, "top_k": options.top_k}
    job |= {"tokens": options.tokens, "width": options.width, "hidden": options.hidden}
    target = "benchmarks.moe_work:measure"
    found = common.run(target, job, backend, options.threads, options.limit)
    if "error" in found:
        return found
    twice = {**job, "tokens": 2 * options.tokens}
    target = "benchmarks.moe_work:peak"
    peak = common.run(target, twice, backend, options.threads, options.limit)
    if "error" in peak:
        return peak
    return {**found, "memory_twice": peak["memory"]}


def _compare(found, first, which):
    """Puts an error into what a process found where it is not what the first one found."""
    expected = first.setdefault(which, found["products"])
    for name, given in found["products"].items():
        value = expected[name]
        if not abs(given - value) <= common.TOLERANCE * max(1.0, abs(value)):
            found["error"] = f"{name} is {given:.6g}, expected {value:.6g}"


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default=",".join(BACKENDS), help=f"of {', '.join(BACKENDS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--experts", default="8,64,256", help="numbers of experts")
    parser.add_argument("--tokens", type=int, default=8192, help="in a batch")
    parser.add_argument("--width", type=int, default=256, help="D, of a token")
    parser.add_argument("--hidden", type=int, default=512, help="F, of an expert")
    parser.add_argument("--top-k", type=int, default=2, help="experts of a token")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--repeats", type=int, default=7, help="of which the median is")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of one process")
    options = parser.parse_args()
    options.experts = [int(count) for count in common.names(options.experts)]
    options.backends, options.peers = common.names(options.backends), common.names(options.peers)
    unknown = [name for name in options.backends if name not in BACKENDS]
    unknown += [name for name in options.peers if name not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join((*BACKENDS, *PEERS))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
