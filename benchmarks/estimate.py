"""The memory that `ek.models.estimate` says, beside what a training step and a call take.

    KERAS_BACKEND=jax python -m benchmarks.estimate

For each preset, size and length, some with an option that saves memory, in a fresh process: a
compiled call and a step of `train_on_batch` run once, which compiles them; then the peak of the
resident memory while one more runs, less the resident memory before it, with the bytes of weights,
optimizer and batch, which lay there already.
The largest of several is the number: later ones use memory that the earlier left free. Under jax
the exit status is 1 where an estimate is more than 20% off.
"""

import argparse
import math
import os
import sys

from benchmarks import common, memory

CASES = (
    ("transformer-tiny", 16, 512),
    ("transformer-tiny", 4, 2048),
    ("transformer-small", 4, 256),
    ("mamba-tiny", 16, 512),
    ("mamba-tiny", 4, 2048),
    ("mamba-small", 4, 256),
    ("hyena-tiny", 16, 512),
    ("hyena-tiny", 4, 2048),
    ("moe-tiny", 16, 512),
    ("moe-tiny", 4, 2048),
    ("xlstm-tiny", 16, 512),
    ("xlstm-tiny", 4, 2048),
    ("transformer-tiny", 16, 512, "checkpointing"),
    ("mamba-tiny", 16, 512, "checkpointing"),
    ("hyena-tiny", 16, 512, "checkpointing"),
    ("transformer-tiny", 16, 512, "vocabulary"),
    ("transformer-tiny", 16, 512, "vocabulary+chunks"),
    ("transformer-tiny", 16, 512, "checkpointing+vocabulary+chunks"),
    ("transformer-tiny", 16, 512, "bfloat16"),
    ("mamba-tiny", 16, 512, "bfloat16"),
)
LIMIT = 0.2
VOCABULARY = 256
OPTIONS = {
    "checkpointing": {"gradient_checkpointing": True},
    "chunks": {"loss_chunk": 32},
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "vocabulary": {"vocab_size": 32_000},
}


def main():
    common.end_workers_with_us()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.estimate", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--cases",
        default=",".join(":".join(map(str, case)) for case in CASES),
        help=f"PRESET:B:T, or PRESET:B:T:OPTIONS, of {', '.join(OPTIONS)}, with + between",
    )
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--repeats", type=int, default=5, help="steps a number")
    parser.add_argument("--limit", type=float, default=600, help="seconds that one case may take")
    options = parser.parse_args()
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend not in common.PACKAGES:
        parser.error(f"KERAS_BACKEND is {backend!r}; expected one of {', '.join(common.PACKAGES)}")
    print(common.versions(*common.packages_of([backend])))
    print(f"KERAS_BACKEND={backend}, {options.threads} threads, AdamW, {VOCABULARY} tokens")
    # Else glibc keeps what is freed of blocks up to 32 MiB, and a step takes it uncounted.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 17)
    rows, failures = [], []
    for case in common.names(options.cases):
        name, batch, length, *chosen = case.split(":")
        chosen = [option for each in chosen for option in each.split("+")]
        if unknown := sorted(set(chosen) - set(OPTIONS)):
            parser.error(f"{case} has the option {unknown[0]!r}; expected {', '.join(OPTIONS)}")
        job = {"name": name, "batch": int(batch), "length": int(length), "repeats": options.repeats}
        job["options"] = {key: value for each in chosen for key, value in OPTIONS[each].items()}
        found = common.run(
            "benchmarks.estimate:measure", job, backend, options.threads, options.limit
        )
        if "error" in found:
            failures.append(f"{case}: {found['error']}")
            continue
        cells = [name, batch, length, ", ".join(chosen) or "-"]
        for what in ("training", "inference"):
            if what not in found:
                cells += ["-", "-", "-"]
                continue
            said, taken = found[what]
            cells += [f"{said / 2**20:.1f}", f"{taken / 2**20:.1f}", f"{said / taken:.2f}"]
            if backend == "jax" and abs(said / taken - 1) > LIMIT:
                failures.append(f"{case}, {what}: {said / taken:.2f} of the measured peak")
        rows.append(cells)
        print(f"  {case}: {cells[4:]}", file=sys.stderr, flush=True)
    columns = ["preset", "B", "T", "options"]
    for what in ("training", "inference"):
        columns += [f"{what}: estimate, MiB", "measured, MiB", "ratio"]
    print("\n" + common.table(columns, rows))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def measure(job):
    """The estimated and the measured peaks, in the process of its worker."""
    import numpy as np

    import ember_keras as ek
    import keras  # isort: skip - under mlx after ember_keras

    if ek.backend.name() == "torch":
        import torch

        torch.set_num_threads(job["threads"])
    model = ek.models.presets.build(job["name"], **{"vocab_size": VOCABULARY, **job["options"]})
    x = np.ones((job["batch"], job["length"]), "int32")
    model.build((None, None))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss)
    found = {}
    trains = ek.backend.capabilities().trains
    # The call first: what a step leaves free in the process, a call would use uncounted.
    there = sum(map(_bytes, model.variables)) + x.nbytes
    found["inference"] = [None, there + _rise(_call(model, x), job["repeats"])]
    if trains:
        rise = _rise(lambda: model.train_on_batch(x, x), job["repeats"])
        there = sum(map(_bytes, (*model.variables, *model.optimizer.variables))) + 2 * x.nbytes
        found["training"] = [None, there + rise]
    estimate = ek.models.estimate(model, job["batch"], job["length"], training=trains)
    found["inference"][0] = estimate.inference_peak_bytes
    if trains:
        found["training"][0] = estimate.training_peak_bytes
    return found


def _call(model, x):
    import ember_keras as ek
    from keras import ops  # isort: skip - under mlx after ember_keras

    weights = [[v.value for v in model.trainable_variables]]
    weights.append([v.value for v in model.non_trainable_variables])
    call = ek.backend.compile(lambda a, b, x: model.stateless_call(a, b, x, training=False)[0])
    return lambda: common.wait(call(*weights, ops.convert_to_tensor(x)))


def _bytes(variable):
    return 4 * math.prod(variable.shape)


def _rise(function, repeats):
    """The most that the resident memory rises while a function runs again."""
    function()
    return max(memory.rise(function)[1] for _ in range(repeats))


if __name__ == "__main__":
    sys.exit(main())
