"""What the benchmarks share: workers in processes of their own, timing, versions and tables.

A worker is a function of a module here, `job -> result`, both plain data. It runs in a fresh
process, so that no backend, cache or peak of memory is shared, and so that one that fails, hangs or
is killed costs its own row only.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = {
    "numpy": ("numpy",),
    "jax": ("jax", "jaxlib"),
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "mlx": ("mlx", "keras-mlx"),
}
TOLERANCE = 1e-4
"""How far two computations of the same may differ, in units of the largest absolute value."""

ROOT = Path(__file__).resolve().parent.parent


def run(target, job, backend, threads, limit):
    """What the worker `target` ("module:function") returns for `job`, or {"error": reason}."""
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log"
        with open(log, "wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.common", target, str(answer)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment(backend, threads),
                start_new_session=True,
            )
            try:
                process.communicate(json.dumps({**job, "threads": threads}).encode(), limit)
            except subprocess.TimeoutExpired:
                _end(process)
                return {"error": f"over the limit of {limit:g} s"}
            except BaseException:
                _end(process)
                raise
        if answer.exists():
            return json.loads(answer.read_text())
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = f": {lines[-1].strip()[:300]}" if lines else ""
        if process.returncode < 0:
            said = f" by signal {signal.Signals(-process.returncode).name}{said}"
        return {"error": f"ended{said}"}


def end_workers_with_us():
    """Make SIGTERM unwind this process, as an interrupt does, so that its worker ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def environment(backend, threads):
    """The environment of a worker: its backend, and as many threads as every other worker has."""
    count = str(threads)
    return {
        "MPLBACKEND": "Agg",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
    }


def _limit_cores(threads):
    """The thread pools of jax, tensorflow and mlx take the size of the process's set of cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        # Where memory runs out, the machine ends this process and no other.
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def _work(target, answer):
    job = json.load(sys.stdin)
    _limit_cores(job["threads"])
    module, function = target.split(":")
    try:
        result = getattr(importlib.import_module(module), function)(job)
    except MemoryError:
        result = {"error": "out of memory"}
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        result = {"error": f"{type(error).__name__}: {said[0][:300]}"}
    # Written under another name first: what exists is whole.
    part = Path(answer).with_suffix(".part")
    part.write_text(json.dumps(result))
    part.rename(answer)


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def versions(*packages):
    """The versions of Python, Keras, Ember Keras and of each package that is installed."""
    found = [f"Python {platform.python_version()}"]
    for package in ("keras", "ember-keras", *packages):
        found.append(f"{package} {_version(package)}")
    return ", ".join(part for part in found if not part.endswith(" None"))


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "ember-keras":
            return None
    text = (ROOT / "ember_keras" / "__init__.py").read_text()
    line = next((row for row in text.splitlines() if row.startswith("__version__")), None)
    return line.split("=")[1].strip(" \"'") if line else "in this folder"


def packages_of(backends):
    """The packages whose versions matter to these backends."""
    return [package for backend in backends for package in PACKAGES.get(backend, ())]


def wait(nest):
    """Wait until every tensor of a nest is computed: jax, mlx and a GPU's torch return before."""
    import keras

    leaves = keras.tree.flatten(nest)
    if any(type(leaf).__module__.startswith("mlx") for leaf in leaves):
        import mlx.core as mx

        mx.eval([leaf for leaf in leaves if isinstance(leaf, mx.array)])
    for leaf in leaves:
        if hasattr(leaf, "block_until_ready"):
            leaf.block_until_ready()
        elif getattr(leaf, "is_cuda", False):
            import torch

            torch.cuda.synchronize()


def seconds(function, repeats):
    """The seconds of each of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def summary(times):
    """The median and the spread of some times."""
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def difference(y, expected):
    """The largest difference of two arrays, in units of the largest absolute value expected."""
    import numpy as np

    if y.shape != expected.shape:
        raise ValueError(f"the shape is {y.shape}, expected {expected.shape}")
    if not np.isfinite(y).all():
        raise ValueError("the output is not finite")
    return float(np.abs(y - expected).max() / max(np.abs(expected).max(), 1e-30))


def table(columns, rows):
    """A Markdown table whose columns stand below each other in a terminal too."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in cells
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def names(text):
    """The names in a list such as "jax,torch"."""
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    _work(*sys.argv[1:])
