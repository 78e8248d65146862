"""The memory that each engine takes, against the length of the sequence.

    KERAS_BACKEND=jax python -m benchmarks.memory

For each engine and length, forward alone and forward with backward: the peak of the resident memory
while one call runs, less the resident memory before it, in a fresh process, which has imported
everything, made the inputs, and run the engine at 64 positions. Memory that this left free in the
process, and that the call uses, is not counted: the largest of three processes is the number. What
the backend compiles
is compiled before; nonlinear_scan under mlx, which writes a loop out and crashes when it compiles
16k positions, runs as it is. Each engine gets a batch of one and small heads, so that 64k positions
of attention take minutes at most; the sizes are printed. The exit status is 1 where a length four
times as long takes more than 4.4 times the memory, from 16k to 64k, or where a call fails.
"""

import argparse
import ctypes
import gc
import json
import os
import resource
import sys
from pathlib import Path

from benchmarks import common

LENGTHS = (1024, 4096, 16384, 65536)
FROM, TO = 16384, 65536
LIMIT = 4.4
WARM = 64
SIZES = {
    "attention": {"B": 1, "H": 2, "K": 16, "V": 16},
    "fft_conv": {"B": 1, "D": 64},
    "linear_recurrence": {"B": 1, "D": 16, "K": 8},
    "gated_linear_attention": {"B": 1, "H": 2, "K": 32, "V": 32},
    "delta_rule": {"B": 1, "H": 2, "K": 32, "V": 32},
    "nonlinear_scan": {"B": 1, "D": 64},
}


def main():
    common.end_workers_with_us()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--engines", default=",".join(SIZES), help="names, with commas between")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--repeats", type=int, default=3, help="processes a number")
    parser.add_argument("--limit", type=float, default=600, help="seconds that one call may take")
    parser.add_argument("--json", type=Path, help="a file to write the numbers to as well")
    options = parser.parse_args()
    engines = common.names(options.engines)
    unknown = sorted(set(engines) - set(SIZES))
    if unknown:
        parser.error(f"--engines has {', '.join(unknown)}; expected some of {', '.join(SIZES)}")
    lengths = [int(length) for length in common.names(options.lengths)]
    if not lengths or min(lengths) < 1:
        parser.error(f"--lengths is {options.lengths}; expected numbers of at least 1")
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; expected at least 1")
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend not in common.PACKAGES:
        parser.error(f"KERAS_BACKEND is {backend!r}; expected one of {', '.join(common.PACKAGES)}")

    versions = common.versions(*common.packages_of([backend]))
    print(f"{versions}\nKERAS_BACKEND={backend}, {options.threads} threads, float32")
    for engine in engines:
        print(f"{engine}: " + ", ".join(f"{k}={v}" for k, v in SIZES[engine].items()))
    print(f"Peak memory of a call, the largest of {options.repeats}, {_method()}.")
    print(f"Growth is that from {FROM} to {TO} positions.\n")
    passes = ("forward",) if backend == "numpy" else ("forward", "forward and backward")
    rows, found, failures = [], [], []
    for engine in engines:
        for which in passes:
            cells, at = [], {}
            for length in lengths:
                job = {"engine": engine, "pass": which, "length": length}
                result = _largest(job, backend, options)
                found.append({**job, **result})
                if "error" in result:
                    failures.append(f"{engine}, {which}, T={length}: {result['error']}")
                    cells.append("failed")
                else:
                    at[length] = result["bytes"]
                    cells.append(f"{result['bytes'] / 2**20:.1f} MiB")
                print(f"  {engine}, {which}, T={length}: {cells[-1]}", file=sys.stderr)
            growth = at[TO] / max(at[FROM], 1) if FROM in at and TO in at else None
            if growth is not None and growth > LIMIT:
                failures.append(f"{engine}, {which}: grows {growth:.2f} times; limit {LIMIT}")
            shown = "" if growth is None else f"{growth:.2f}"
            rows.append([engine, which, *cells, shown])
    print(common.table(["engine", "pass", *(f"T={n}" for n in lengths), "growth"], rows))
    print("\n".join(["", *failures]) if failures else "")
    if options.json:
        data = {"versions": versions, "backend": backend, "threads": options.threads}
        options.json.write_text(json.dumps({**data, "sizes": SIZES, "results": found}, indent=1))
    return 1 if failures else 0


def _largest(job, backend, options):
    results = []
    for _ in range(options.repeats):
        results.append(
            common.run("benchmarks.memory:measure", job, backend, options.threads, options.limit)
        )
        if "error" in results[-1]:
            return results[-1]
    return max(results, key=lambda result: result["bytes"])


def measure(job):
    """The bytes of one call, in the process of its worker."""
    import ember_keras as ek
    from keras import ops  # isort: skip - under mlx after ember_keras

    if ek.backend.name() == "torch":
        import torch

        torch.set_num_threads(job["threads"])
    call = _call(job["engine"])

    def loss(*tensors):
        return ops.mean(ops.square(call(*tensors)))

    backward = job["pass"] != "forward"
    function = ek.backend.value_and_grad(loss) if backward else call

    def prepare(length):
        tensors = [ops.convert_to_tensor(x) for x in _inputs(job["engine"], length)]
        common.wait(tensors)
        if (ek.backend.name(), job["engine"]) == ("mlx", "nonlinear_scan"):
            return function, tensors
        return compiled(function, tensors), tensors

    warm, tensors = prepare(WARM)
    common.wait(warm(*tensors))
    ready, tensors = prepare(job["length"])
    result, used = rise(lambda: ready(*tensors))
    for leaf in _leaves(result):
        common.difference(leaf, leaf)  # Raises where it is not finite.
    return {"bytes": used}


def compiled(function, tensors):
    """A function compiled for some tensors before its first call, where a backend can do that."""
    import ember_keras as ek

    found = ek.backend.compile(function)
    if hasattr(found, "lower"):
        return found.lower(*tensors).compile()
    if hasattr(found, "get_concrete_function"):
        found.get_concrete_function(*tensors)
    return found


def rise(call):
    """What a call returns, and by how many bytes the resident memory rises while it runs."""
    gc.collect()
    _give_back()
    before = _resident()
    _forget_peak()
    result = call()
    common.wait(result)
    return result, max(0, _peak() - before)


def _leaves(result):
    import keras

    import ember_keras as ek

    return [ek.backend.to_numpy(leaf) for leaf in keras.tree.flatten(result)]


def _inputs(engine, length):
    import numpy as np

    size = SIZES[engine]
    rng = np.random.default_rng(0)

    def normal(letters):
        return rng.normal(size=[length if c == "T" else size[c] for c in letters]).astype("float32")

    def decay(letters):
        return -np.abs(normal(letters))

    if engine == "fft_conv":
        taps = np.exp(-np.arange(length, dtype="float32") / 100)[:, None]
        return [normal("BTD"), normal("TD") * taps]
    if engine == "linear_recurrence":
        return [decay("BTDK"), normal("BTDK")]
    if engine == "nonlinear_scan":
        return [normal("BTD"), normal("DD") * 0.1]
    tensors = [normal("BTHK"), normal("BTHK"), normal("BTHV")]
    if engine == "gated_linear_attention":
        return [*tensors, decay("BTHK")]
    if engine == "delta_rule":
        key = tensors[1] / np.linalg.norm(tensors[1], axis=-1, keepdims=True)
        return [tensors[0], key, tensors[2], 1 / (1 + np.exp(normal("BTH"))), decay("BTH")]
    return tensors


def _call(engine):
    import ember_keras as ek
    from keras import ops  # isort: skip - under mlx after ember_keras

    if engine == "linear_recurrence":
        return lambda a, b: ek.ops.linear_recurrence(a, b, log_space=True)
    if engine == "nonlinear_scan":

        def cell(x_t, state, weight):
            state = ops.tanh(x_t + ops.matmul(state, weight))
            return state, state

        def scan(x, weight):
            fresh = ops.zeros((1, int(x.shape[2])))
            return ek.ops.nonlinear_scan(cell, x, weights=weight, fresh_state=fresh)

        return scan
    return getattr(ek.ops, engine)


def _method():
    return "read from /proc" if _can_forget() else "the largest of the process (getrusage)"


def _can_forget():
    return os.access("/proc/self/clear_refs", os.W_OK)


def _give_back():
    """Return to the system what is free already, which the call would else use uncounted."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Of glibc alone.
        if trim is not None:
            trim(0)


def _forget_peak():
    if _can_forget():
        Path("/proc/self/clear_refs").write_text("5")


def _status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _peak():
    if _can_forget():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _resident():
    # Where the present size is unknown, the largest so far is what a call can only add to.
    return _status("VmRSS") if Path("/proc/self/status").exists() else _peak()


if __name__ == "__main__":
    sys.exit(main())
