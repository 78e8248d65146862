"""The memory and time of a training step whose blocks run again in the backward pass.

    KERAS_BACKEND=jax python -m benchmarks.checkpointing

One call is the mean square of a `SequenceModel`'s output and its gradients, for all weights, with
and without `gradient_checkpointing`. Memory is the peak of the resident memory while a call runs,
less the resident memory before it, in a fresh process that has compiled the call and run it on few
positions; the larger of two processes. The exit status is 1 where the two differ or a call fails.
"""

import argparse
import os
import sys

from benchmarks import common, memory

SIZES = {"B": 4, "T": 512, "D": 128}
BLOCKS = ("attention", "gated_mlp")


def main():
    common.end_workers_with_us()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpointing", description=__doc__.split("\n")[0]
    )
    for letter, size in SIZES.items():
        parser.add_argument(f"--{letter}", type=int, default=size)
    parser.add_argument("--blocks", default=",".join(BLOCKS), help="names, with commas between")
    parser.add_argument("--times", type=int, default=6, help="how often the blocks stand")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--repeats", type=int, default=5, help="timed calls a process")
    parser.add_argument("--limit", type=float, default=600, help="seconds a process")
    options = parser.parse_args()
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend not in common.PACKAGES or backend == "numpy":
        parser.error(f"KERAS_BACKEND is {backend!r}; expected one that trains")
    sizes = {letter: getattr(options, letter) for letter in SIZES}
    print(common.versions(*common.packages_of([backend])))
    print(f"KERAS_BACKEND={backend}, {options.threads} threads, float32")
    print(f"{options.blocks} x {options.times}, {sizes}\n")
    rows, values, failures = [], [], []
    for again in (False, True):
        job = {"again": again, "sizes": sizes, "repeats": options.repeats}
        job |= {"blocks": common.names(options.blocks), "times": options.times}
        results = [
            common.run(
                "benchmarks.checkpointing:measure", job, backend, options.threads, options.limit
            )
            for _ in range(2)
        ]
        wrong = [result["error"] for result in results if "error" in result]
        if wrong:
            failures.append(f"gradient_checkpointing={again}: {wrong[0]}")
            continue
        values += [result["value"] for result in results]
        used = max(result["bytes"] for result in results)
        times = common.summary([second for result in results for second in result["seconds"]])
        shown = (f"{times[key]:.2f}" for key in ("median", "min", "max"))
        rows.append([again, f"{used / 2**20:.0f} MiB", *shown])
    columns = ["gradient_checkpointing", "memory", "seconds", "least", "most"]
    print(common.table(columns, rows))
    if values and max(values) - min(values) > 1e-5 * abs(values[0]):
        failures.append(f"the sums of gradients differ: {values}")
    print("\n".join(["", *failures]) if failures else "")
    return 1 if failures else 0


def measure(job):
    """The peak and the times of one model, in the process of its worker."""
    import ember_keras as ek

    if ek.backend.name() == "torch":
        import torch

        torch.set_num_threads(job["threads"])
    warm, tensors = _compiled(job, 8)
    common.wait(warm(*tensors))
    call, tensors = _compiled(job, job["sizes"]["T"])
    result, used = memory.rise(lambda: call(*tensors))
    value = float(sum(abs(ek.backend.to_numpy(each)).sum() for each in result[1]))
    times = common.seconds(lambda: common.wait(call(*tensors)), job["repeats"])
    return {"bytes": used, "seconds": times, "value": value}


def _compiled(job, length):
    import numpy as np

    import ember_keras as ek
    import keras  # isort: skip - under mlx after ember_keras
    from keras import ops  # isort: skip

    keras.utils.set_random_seed(0)
    model = ek.models.SequenceModel(
        job["blocks"], job["times"], gradient_checkpointing=job["again"]
    )
    shape = (job["sizes"]["B"], length, job["sizes"]["D"])
    model.build(shape)
    variables = model.trainable_variables

    def loss(x, *values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return ops.mean(ops.square(model(x, training=True)))

    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    tensors = [ops.convert_to_tensor(each) for each in (x, *(each.value for each in variables))]
    common.wait(tensors)
    return memory.compiled(ek.backend.value_and_grad(loss), tensors), tensors


if __name__ == "__main__":
    sys.exit(main())
