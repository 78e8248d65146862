"""The memory and time of a head and its cross-entropy, in chunks of positions and all at once.

    KERAS_BACKEND=jax python -m benchmarks.cross_entropy

One call is the loss of a head `(B, T, D) -> (B, T, V)` and its gradients for what the head reads
and for its weights: `keras.losses.SparseCategoricalCrossentropy` of all logits, and
`ember_keras.ops.linear_cross_entropy` with a chunk. Memory is the peak of the resident memory while
a call runs, less the resident memory before it, in a fresh process that has compiled the call and
run it on few tokens; the larger of two processes. The exit status is 1 where the two differ, where
a call fails, or where the chunks take more than a quarter of the memory.
"""

import argparse
import os
import sys

from benchmarks import common, memory

SIZES = {"B": 4, "T": 512, "D": 256, "V": 50_000}
FORMS = ("plain", "chunked")
SHARE = 0.25


def main():
    common.end_workers_with_us()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cross_entropy", description=__doc__.split("\n")[0]
    )
    for letter, size in SIZES.items():
        parser.add_argument(f"--{letter}", type=int, default=size)
    parser.add_argument("--chunk", type=int, default=16, help="positions of each row at once")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--repeats", type=int, default=5, help="timed calls a process")
    parser.add_argument("--limit", type=float, default=600, help="seconds a process")
    options = parser.parse_args()
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend not in common.PACKAGES or backend == "numpy":
        parser.error(f"KERAS_BACKEND is {backend!r}; expected one that trains")
    sizes = {letter: getattr(options, letter) for letter in SIZES}
    print(common.versions(*common.packages_of([backend])))
    print(f"KERAS_BACKEND={backend}, {options.threads} threads, float32, chunk={options.chunk}")
    print(", ".join(f"{letter}={size}" for letter, size in sizes.items()), "\n")
    rows, found, failures = [], {}, []
    for form in FORMS:
        job = {"form": form, "sizes": sizes, "chunk": options.chunk, "repeats": options.repeats}
        results = [
            common.run(
                "benchmarks.cross_entropy:measure", job, backend, options.threads, options.limit
            )
            for _ in range(2)
        ]
        wrong = [result["error"] for result in results if "error" in result]
        if wrong:
            failures.append(f"{form}: {wrong[0]}")
            continue
        found[form] = max(result["bytes"] for result in results)
        times = sorted(second for result in results for second in result["seconds"])
        rows.append([form, f"{found[form] / 2**20:.0f} MiB", *_spread(times)])
    print(common.table(["form", "memory", "seconds", "from", "to"], rows))
    if len(found) == 2:
        share = found["chunked"] / found["plain"]
        print(f"\nThe chunks take {share:.2f} of the memory.")
        if share > SHARE:
            failures.append(f"{share:.2f} of the memory; limit {SHARE}")
    print("\n".join(["", *failures]) if failures else "")
    return 1 if failures else 0


def _spread(times):
    return [f"{times[len(times) // 2]:.2f}", f"{times[0]:.2f}", f"{times[-1]:.2f}"]


def measure(job):
    """The peak and the times of one form, in the process of its worker."""
    import ember_keras as ek

    if ek.backend.name() == "torch":
        import torch

        torch.set_num_threads(job["threads"])
    _check(job["chunk"])
    size = job["sizes"]
    ready = _compiled(job, {**size, "T": 8})
    common.wait(ready[0](*ready[1]))
    call, tensors = _compiled(job, size)
    _, used = memory.rise(lambda: call(*tensors))
    times = common.seconds(lambda: common.wait(call(*tensors)), job["repeats"])
    return {"bytes": used, "seconds": times}


def _check(chunk):
    """Refuses to measure where the two differ."""
    found = []
    for form in FORMS:
        job = {"form": form, "chunk": min(chunk, 5)}
        call, tensors = _compiled(job, {"B": 2, "T": 13, "D": 16, "V": 101})
        value, gradients = call(*tensors)
        found.append([value, *(each for each in gradients if each is not None)])
    import ember_keras as ek

    for ours, plain in zip(found[1], found[0], strict=True):
        apart = common.difference(ek.backend.to_numpy(ours), ek.backend.to_numpy(plain))
        if apart > 1e-5:
            raise ValueError(f"The two forms differ by {apart:.1e}; expected at most 1e-5.")


def _compiled(job, size):
    import numpy as np

    import ember_keras as ek
    import keras  # isort: skip - under mlx after ember_keras
    from keras import ops  # isort: skip

    rng = np.random.default_rng(0)
    x = rng.normal(size=(size["B"], size["T"], size["D"])).astype("float32")
    w = rng.normal(size=(size["V"], size["D"])).astype("float32") / size["D"] ** 0.5
    targets = rng.integers(0, size["V"], x.shape[:2]).astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def plain(x, w, targets):
        return loss(targets, ops.matmul(x, ops.transpose(w)))

    def chunked(x, w, targets):
        return ops.mean(ek.ops.linear_cross_entropy(x, w, targets, chunk=job["chunk"]))

    function = ek.backend.value_and_grad(plain if job["form"] == "plain" else chunked)
    tensors = [ops.convert_to_tensor(each) for each in (x, w, targets)]
    common.wait(tensors)
    return memory.compiled(function, tensors), tensors


if __name__ == "__main__":
    sys.exit(main())
