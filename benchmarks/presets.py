"""Each preset trains one epoch on `byte_text` and writes on.

    KERAS_BACKEND=jax python -m benchmarks.presets --size tiny --steps 50

Prints the bits per byte on held-out text before and after, the time of the epoch, and the tokens a
second of `generate`, compiled before it is timed.
"""

import argparse
import math
import time

import ember_keras as ek  # Before Keras, as MLX needs it.

import keras  # isort: skip
from ember_keras.config.presets import FAMILIES, SIZES


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--families", nargs="*", choices=FAMILIES, default=[*FAMILIES])
    parser.add_argument("--steps", type=int, default=None, help="batches; one pass by default")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    ek.backend.require_training()
    task = ek.registry.tasks.build("byte_text", length=options.length)
    data = task.load(0)
    print(f"keras {keras.__version__}, {ek.backend.name()}, {options}")
    print(f"{'preset':24}{'parameters':>12}{'before':>9}{'after':>9}{'epoch s':>9}{'tokens/s':>10}")
    for family in options.families:
        print(_row(f"{family}-{options.size}", task, data, options), flush=True)


def _row(name, task, data, options):
    keras.utils.set_random_seed(0)
    model = ek.models.presets.build(name, **task.model_arguments(data))
    batches = task.batches(data, batch_size=options.batch, seed=0, steps=options.steps)
    model.compile(keras.optimizers.AdamW(1e-3), **task.compile_arguments())
    before = _bits(model, task, data)
    start = time.perf_counter()
    model.fit(batches, shuffle=False, callbacks=[batches.callback], epochs=1, verbose=0)
    epoch = time.perf_counter() - start
    after = _bits(model, task, data)
    prompt = task.encode("The ")
    model.generate(prompt, options.tokens, seed=0)
    start = time.perf_counter()
    model.generate(prompt, options.tokens, seed=0)
    speed = options.tokens / (time.perf_counter() - start)
    size = sum(math.prod(w.shape) for w in model.trainable_weights)
    return f"{name:24}{size:>12,}{before:>9.3f}{after:>9.3f}{epoch:>9.1f}{speed:>10.1f}"


def _bits(model, task, data):
    split = data.held_out
    rows = 64  # The same few windows before and after.
    figures = model.evaluate(
        split.x[:rows],
        split.y[:rows],
        sample_weight=split.sample_weight[:rows],
        batch_size=16,
        verbose=0,
        return_dict=True,
    )
    return task.summarize(figures, data)["bits_per_byte"]


if __name__ == "__main__":
    main()
