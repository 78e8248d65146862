"""What `import ember_keras` adds to `import keras`, each timed in fresh processes.

    KERAS_BACKEND=jax python benchmarks/import_time.py

Prints the versions, the medians and the spread under the backend of KERAS_BACKEND. Under mlx there
is no `import keras` to compare with: stock Keras cannot import it alone.
"""

import os
import platform
import statistics
import subprocess
import sys

RUNS = 15
LIMIT_MS = 150


def milliseconds(statement):
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return 1000 * float(run.stdout)


def show(name, times):
    spread = f"from {min(times):.0f} to {max(times):.0f} ms"
    print(f"{name:32} median {statistics.median(times):6.0f} ms, {spread}")


def main():
    pairs = []
    for _ in range(RUNS + 1):  # The first pair warms the disk cache.
        pairs.append((milliseconds("import keras"), milliseconds("import keras, ember_keras")))
    keras, both = zip(*pairs[1:], strict=True)
    added = statistics.median(both) - statistics.median(keras)
    print(f"Python {platform.python_version()}, KERAS_BACKEND={os.environ.get('KERAS_BACKEND')}")
    show("import keras", keras)
    show("import keras, ember_keras", both)
    print(f"ember_keras adds {added:.0f} ms; the limit is {LIMIT_MS} ms")
    return 1 if added > LIMIT_MS else 0


sys.exit(main())
