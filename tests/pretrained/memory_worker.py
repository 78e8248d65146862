"""Prints how many bytes loading a checkpoint takes at its peak, per byte of the checkpoint.

Run as `KERAS_BACKEND=... python memory_worker.py folder dtype`, alone in its process.
"""

import sys
from pathlib import Path


def status(key):
    """A figure of this process in bytes."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(key))


def main(folder, dtype):
    """Loads a small checkpoint first, which takes what the libraries take once."""
    import ember_keras as ek

    small = ek.models.from_pretrained(f"{folder}/small", dtype=dtype)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins again here.
    large = ek.models.from_pretrained(f"{folder}/large", dtype=dtype)
    peak = status("VmHWM")
    assert small.built and large.built
    size = sum(path.stat().st_size for path in Path(folder, "large").glob("*.safetensors"))
    print(size, (peak - before) / size)


main(*sys.argv[1:])
