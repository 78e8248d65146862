"""What the workers of `benchmarks.mixers` do with a mixer of this package, each in its own process.

Imported by the parent for nothing: it imports a backend.
"""

import time
from pathlib import Path

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras
import numpy as np

from benchmarks import common
from benchmarks.common import difference, seconds, summary, wait

WARM_STEPS = 2
CHECKED = 33
"""Positions on which steps are compared with a full pass before they are timed."""


def train(job):
    """The time of a training step through Keras's own `train_on_batch`, after a check."""
    _prepare(job)
    layer = ek.registry.sequence_mixers.build(job["mixer"])
    inputs = keras.Input((job["time"], job["width"]))
    model = keras.Model(inputs, layer(inputs))
    _share_weights(model, Path(job["folder"]) / "weights.npz")
    x, y = data(job)
    off = _agree(model.predict_on_batch(x[:2]), x[:2].shape, Path(job["folder"]) / "output.npy")
    if off > common.TOLERANCE:
        return {"error": f"differs from the first backend by {off:.1e} of the scale"}
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    losses = []

    def step():
        losses.append(float(model.train_on_batch(x, y)))
        wait([weight.value for weight in model.trainable_variables])  # The loss comes before them.

    (first,) = seconds(step, 1)
    seconds(step, WARM_STEPS - 1)
    times = seconds(step, job["repeats"])
    if not np.isfinite(losses).all():
        return {"error": "the loss is not finite"}
    return {**summary(times), "first": first, "difference": off}


def step(job):
    """The time of a token at each of the given numbers of tokens seen, after a check."""
    _prepare(job)
    return _without_gradients(_step, job)


def lengths(job):
    """The seconds of a pass of each of the given lengths, and of a token after each."""
    _prepare(job)
    passes = _without_gradients(_passes, job)
    stepped = _without_gradients(_step, {**job, "seen": job["lengths"]})
    if "error" in stepped and "bidirectional" not in stepped["error"]:
        return stepped
    steps = {length: times["median"] for length, times in stepped.get("at", {}).items()}
    return {"pass": passes, "step": steps}


def _without_gradients(function, job):
    if ek.backend.name() == "torch":
        import torch

        with torch.no_grad():
            return function(job)
    return function(job)


def _passes(job):
    layer = ek.registry.sequence_mixers.build(job["mixer"])
    layer.build((None, None, job["width"]))
    whole = _compiled(layer, layer)

    def median(length):
        x = np.random.default_rng(0).normal(size=(job["batch"], length, job["width"]))
        x = keras.ops.convert_to_tensor(x.astype("float32"))
        y = ek.backend.to_numpy(whole(x))
        difference(y, y)  # Raises where it is not finite.
        return summary(seconds(lambda: wait(whole(x)), job["repeats"]))["median"]

    return {length: median(length) for length in job["lengths"]}


def _step(job):
    layer = ek.registry.sequence_mixers.build(job["mixer"])
    layer.build((None, None, job["width"]))
    if not layer.is_causal:
        return {"error": "bidirectional: it has no step"}
    rng = np.random.default_rng(0)
    count, repeats, seen = job["tokens"], job["repeats"], sorted(job["seen"])
    rooms = {number: number + (repeats + 1) * count + CHECKED for number in seen}

    def normal(*shape):
        return keras.ops.convert_to_tensor(rng.normal(size=shape).astype("float32"))

    one = _compiled(layer, layer.step, donate=(1,))
    chunk = _compiled(layer, lambda x, state: layer(x, state=state, return_state=True))

    def fresh(number):  # Made for each use, because a step gives up the state before it.
        return layer.initial_state(job["batch"], rooms[number])

    x = normal(job["batch"], CHECKED, job["width"])
    outputs, state = [], fresh(seen[0])
    for t in range(CHECKED):
        y, state = one(x[:, t], state)
        wait((y, state))
        outputs.append(ek.backend.to_numpy(y))
    full = ek.backend.to_numpy(_compiled(layer, layer)(x))
    off = difference(np.stack(outputs, axis=1), full)
    if off > common.TOLERANCE:
        return {"error": f"steps differ from a full pass by {off:.1e} of the scale"}

    token = normal(job["batch"], job["width"])

    def run(state, number):
        """The state after that many tokens, and the seconds that they took."""
        start = time.perf_counter()
        for _ in range(number):
            y, state = one(token, state)
            wait((y, state))  # As generation does: the next token depends on this one.
        return state, time.perf_counter() - start

    if _defers(fresh(seen[0])):
        at = {number: _walked(run, fresh(number), number) for number in seen}
        return {"at": at, "difference": off, "amortised": True}
    states = []
    for number in seen:
        y, state = chunk(normal(job["batch"], number, job["width"]), fresh(number))
        wait((y, state))
        states.append(run(state, count)[0])
    times = [[] for _ in seen]
    for _ in range(repeats):  # In turns, so that what slows the machine slows all.
        for i, state in enumerate(states):
            states[i], total = run(state, count)
            times[i].append(total / count)
    at = {number: summary(each) for number, each in zip(seen, times, strict=True)}
    return {"at": at, "difference": off, "amortised": False}


def _walked(run, state, number):
    """The mean over the last half of that many tokens, walked from the first on.

    A long convolution puts work off, and does the more of it at once the longer it waited: the last
    half of a power of two holds each of its sizes as often as it comes. A state that came out of a
    chunk would start with nothing put off. The spread is that of quarters of the half.
    """
    state, _ = run(state, number // 2)  # Of which the first compiles.
    left, parts = number - number // 2, []
    part = max(1, left // 4)
    while left:
        size = min(part, left)
        state, total = run(state, size)
        parts.append((total, size))
        left -= size
    each = [total / size for total, size in parts]
    mean = sum(total for total, _ in parts) / sum(size for _, size in parts)
    return {"median": mean, "min": min(each), "max": max(each)}


def _defers(state):
    """Whether some part of a state is work put off (`flows`, of a long convolution)."""
    if isinstance(state, dict):
        return "flows" in state or any(_defers(part) for part in state.values())
    return isinstance(state, list | tuple) and any(_defers(part) for part in state)


def _compiled(layer, function, donate=()):
    """`function` compiled where the backend compiles, with the weights as inputs, not constants."""
    if ek.backend.name() != "jax":
        return ek.backend.compile(function, donate)

    def pure(weights, *arguments):
        with keras.StatelessScope(list(zip(layer.variables, weights, strict=True))):
            return function(*arguments)

    compiled = ek.backend.compile(pure, tuple(position + 1 for position in donate))
    return lambda *arguments: compiled([v.value for v in layer.variables], *arguments)


def _prepare(job):
    keras.utils.set_random_seed(0)
    if ek.backend.name() == "torch":
        import torch

        torch.set_num_threads(job["threads"])


def data(job):
    """Inputs and targets of a training step, the same for every backend and peer."""
    rng = np.random.default_rng(0)
    shape = (job["batch"], job["time"], job["width"])
    return rng.normal(size=shape).astype("float32"), rng.normal(size=shape).astype("float32")


def _share_weights(model, path):
    """The first backend writes its weights, the others read them."""
    weights = [weight for weight in model.weights if "int" not in weight.dtype]
    if path.exists():
        with np.load(path) as kept:
            for i, weight in enumerate(weights):
                weight.assign(kept[str(i)])
    else:
        values = {str(i): ek.backend.to_numpy(weight) for i, weight in enumerate(weights)}
        np.savez(path, **values)


def _agree(y, shape, path):
    """The difference from the first backend's output; checks it, and writes it if it is first."""
    y = np.asarray(y)
    if y.shape != shape:
        raise ValueError(f"the output has the shape {y.shape}, expected {shape}")
    expected = np.load(path) if path.exists() else y
    off = difference(y, expected)
    if not path.exists():
        np.save(path, y)
    return off
