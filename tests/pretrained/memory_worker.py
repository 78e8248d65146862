"""Prints what loading checkpoints takes at its peak, per byte of the variables that they fill.

Run as `KERAS_BACKEND=... python memory_worker.py folder`, alone in its process. A line has the
dtype of the files, that of the variables, the bytes of these, and the ratio.
"""

import sys
from pathlib import Path

RUNS = [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]


def status(key):
    """A figure of this process in bytes."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(key))


def main(folder):
    """Loads a small checkpoint before each large one, which takes what the libraries take once."""
    import ember_keras as ek

    kept = []  # Nothing is freed that the next could take over.
    for stored, dtype in RUNS:
        kept.append(ek.models.from_pretrained(f"{folder}/{stored}/small", dtype=dtype))
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # The peak begins again here.
        kept.append(ek.models.from_pretrained(f"{folder}/{stored}/large", dtype=dtype))
        peak = status("VmHWM")
        size = kept[-1].count_params() * (2 if dtype == "bfloat16" else 4)
        print(stored, dtype, size, (peak - before) / size)


main(*sys.argv[1:])
