"""The long convolution's kernel beside the FFTs of other packages, as Markdown tables.

    python -m benchmarks.fft_conv
    python -m benchmarks.fft_conv --rows 256,4096 --peers kernel,torch,scipy

A causal convolution of u ``(B, T, D)`` with k ``(T, D)`` in float32, forward, and forward with the
gradients for u and k. Each peer has a process of its own and is timed after its results were
compared with float64. Rounds of all peers take turns, and the least median counts: what else runs
on the machine then slows all of them. `kernel` is the C interface, which writes to arrays that are
there; `ek torch` and its like are `ek.ops.fft_conv`, which makes its results as the peers do. The
exit status is 1 where a check or a peer fails.
"""

import argparse
import math
import sys
import tempfile

from benchmarks import common
from benchmarks.fft_conv_peers import PEERS
from ember_keras.cuda import library
from ember_keras.cuda.build import build

ROWS = {
    256: (16, 256),
    1024: (8, 256),
    4096: (4, 256),
    16384: (2, 128),
    65536: (2, 64),
    262144: (2, 32),
    1048576: (2, 16),
}
TITLES = {"forward": "Forward", "both": "Forward and backward"}


def main():
    common.end_workers_with_us()
    options = _options()
    packages = common.packages_of(["numpy", "torch", "jax", "tensorflow", "mlx"])
    print(f"{common.versions(*packages, 'scipy')}; {options.threads} threads, float32, ms")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        built, _ = library.load()
        path = built.path if built else str(build(folder))
        found = {time: _row(time, path, options, failed) for time in options.rows}
    for part, title in TITLES.items():
        print(f"\n{title}:\n\n{_table(found, part, options.peers)}")
    for line in failed:
        print(line)
    return 1 if failed else 0


def _row(time, path, options, failed):
    batch, width = ROWS[time]
    job = {"batch": batch, "time": time, "width": width, "library": path}
    job |= {"repeats": options.repeats, "seconds": options.seconds}
    found = {}
    for _ in range(options.rounds):
        for peer in options.peers:
            result = common.run(
                "benchmarks.fft_conv_peers:measure",
                {**job, "peer": peer},
                PEERS[peer][0],
                options.threads,
                options.limit,
            )
            if "error" in result:
                failed.append(f"{peer}, T = {time}: {result['error']}")
                continue
            shown = f"{1000 * result['forward']['median']:.3g}"
            print(f"  T = {time}, {peer}: {shown} ms forward", file=sys.stderr)
            best = found.setdefault(peer, dict.fromkeys((*TITLES, "worst"), math.inf))
            best["worst"] = result["worst"]
            for part in TITLES:
                best[part] = min(best[part], result.get(part, {}).get("median", math.inf))
    return found


def _table(found, part, peers):
    own = [peer for peer in peers if peer == "kernel" or peer.startswith("ek ")]
    others = [peer for peer in peers if peer not in own]
    columns = ("T, B, D", *others, *own, "GFLOP/s", "kernel's error")
    rows = []
    for time, row in found.items():
        batch, width = ROWS[time]
        times = {peer: row[peer][part] for peer in peers if peer in row}
        best = min((times[peer] for peer in others if peer in times), default=math.inf)
        cells = [f"{time}, {batch}, {width}"]
        cells += [_time(times.get(peer, math.inf)) for peer in others]
        cells += [_time(times.get(peer, math.inf), best) for peer in own]
        if "kernel" in row:
            # 10 T log2(2 T) a row for two transforms of the signal; the gradients take three more.
            work = 10 * time * math.log2(2 * time) * batch * width
            work *= 1 if part == "forward" else 2.5
            cells += [f"{work / times['kernel'] / 1e9:.0f}", f"{row['kernel']['worst']:.1e}"]
        rows.append([*cells, *[""] * (len(columns) - len(cells))])
    return common.table(columns, rows)


def _time(seconds, best=math.inf):
    """Milliseconds, and in brackets how many times the best peer takes as much."""
    if seconds == math.inf:
        return ""
    shown = f"{1000 * seconds:.3g}"
    return shown if best == math.inf else f"{shown} ({best / seconds:.2f}x)"


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="lengths T")
    peers = [name for name in PEERS if not name.startswith("mlx ")]
    parser.add_argument("--peers", default=",".join(peers), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of one process")
    options = parser.parse_args()
    options.rows = [int(name) for name in common.names(options.rows)]
    options.peers = common.names(options.peers)
    unknown = [name for name in options.peers if name not in PEERS]
    unknown += [str(time) for time in options.rows if time not in ROWS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}; T {list(ROWS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
