"""The workers of `benchmarks.moe`: a mixture or a dense layer, forward and backward."""

import ctypes
import gc
import time
from pathlib import Path

import numpy as np

from benchmarks import common

PEERS = ("mixtral", "mixtral-grouped", "qwen3", "qwen3-grouped", "keras_hub")
LONG = 10.0
"""Seconds after which a step is repeated no more."""
ROWS = 8
"""Sequences that the tokens are cut into."""
SETTLES = 2.0
"""Seconds in which jax gives up what weights were loaded from: it does so in the background."""
FEW = 8
"""Experts of the step that starts threads."""


def measure(job):
    """The seconds of a step, its memory, and products of its results with random directions."""
    step, memory = _measured(job)
    results = step()
    products = {}
    for i, (name, value) in enumerate(results.items()):
        value = np.asarray(value, np.float64)
        if not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
        direction = np.random.default_rng([5, i]).normal(size=value.shape)
        products[name] = float(np.sum(value * direction) / max(np.linalg.norm(value), 1e-30))
    del results
    step.run()
    times = common.seconds(step.run, 1)
    while len(times) < job["repeats"] and sum(times) < LONG:
        times += common.seconds(step.run, 1)
    return {"time": common.summary(times), "products": products, "memory": memory}


def peak(job):
    """The memory of a step alone."""
    return {"memory": _measured(job)[1]}


def _measured(job):
    """A step, and the bytes that it takes at most beside what there was before the first one.

    Before that, a step of few tokens loads code and starts threads. What there is is what is in
    memory at the time: the most that the process ever had holds copies made while weights were
    loaded. The most is that of the second step: the first one is compiled, by some. TensorFlow
    keeps memory that became free while weights were loaded, and takes less from the system for it.
    """
    few = _step({**job, "tokens": ROWS, "experts": min(job["experts"], FEW)})
    few.run()
    del few
    step = _step(job)
    time.sleep(SETTLES)
    _return_memory()
    before = _status("VmRSS")
    step.run()
    _return_memory()
    Path("/proc/self/clear_refs").write_text("5")  # Linux counts the most from here on.
    step.run()
    return step, _status("VmHWM") - before


def _return_memory():
    """Give what nothing holds back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {name}")


class Step:
    """A forward and backward pass.

    Args:
        run: function that computes everything and waits for it.
        read: function that returns the results by name.
    """

    def __init__(self, run, read):
        self.run, self.read = run, read

    def __call__(self):
        return self.read(self.run())


def _arrays(job):
    """The tokens, the cotangent of the output, and the weights."""
    rng = np.random.default_rng(0)
    experts, width, hidden = job["experts"], job["width"], job["hidden"]
    if job["kind"] == "dense":
        hidden *= job["top_k"]
    shape = (ROWS, job["tokens"] // ROWS, width)
    return {
        "x": rng.normal(size=shape).astype("float32"),
        "g": rng.normal(size=shape).astype("float32"),
        "router": rng.normal(size=(width, experts)).astype("float32") / width**0.5,
        "gate_up": rng.normal(size=(experts, width, 2 * hidden)).astype("float32") / width**0.5,
        "down": rng.normal(size=(experts, hidden, width)).astype("float32") / hidden**0.5,
    }


def _step(job):
    arrays = _arrays(job)
    if job["kind"] == "keras_hub":
        return _keras_hub(job, arrays)
    return _transformers(job, arrays) if job["kind"] in PEERS else _ours(job, arrays)


def _ours(job, arrays):
    import ember_keras as ek

    import keras  # isort: skip
    from keras import ops  # isort: skip

    if job["kind"] == "dense":
        layer = ek.layers.GatedMLP(hidden_dim=job["top_k"] * job["hidden"])
        layer.build(arrays["x"].shape)
        layer.gate_up.kernel.assign(arrays["gate_up"][0])
        layer.down.kernel.assign(arrays["down"][0])
        names = {"gate_up": layer.gate_up.kernel, "down": layer.down.kernel}
    else:
        expert = {"type": "gated_mlp", "hidden_dim": job["hidden"]}
        layer = ek.layers.MixtureOfExperts(job["experts"], job["top_k"], expert)
        layer.build(arrays["x"].shape)
        stack = layer.stacks[0]
        names = {"router": layer.router.kernel, "gate_up": stack.gate_up, "down": stack.down}
        for name, variable in names.items():
            variable.assign(arrays[name])
    x, g = ops.convert_to_tensor(arrays["x"]), ops.convert_to_tensor(arrays["g"])
    variables = list(names.values())
    run = _RUNS[keras.backend.backend()](layer, variables, x, g)

    def read(found):
        if len(found) == 1:
            return {"y": ek.backend.to_numpy(found[0])}
        y, dx, slopes = found
        values = {"y": y, "x": dx, **dict(zip(names, slopes, strict=True))}
        return {name: ek.backend.to_numpy(value) for name, value in values.items()}

    return Step(run, read)


def _jax(layer, variables, x, g):
    import jax
    import keras

    def output(x, values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return layer(x)

    @jax.jit
    def both(x, values, g):
        y, back = jax.vjp(output, x, values)
        return (y, *back(g))

    def run():
        found = both(x, [v.value for v in variables], g)
        common.wait(found)
        return found

    return run


def _torch(layer, variables, x, g):
    import torch

    x.requires_grad_(True)
    values = [v.value for v in variables]

    def run():
        y = layer(x)
        dx, *slopes = torch.autograd.grad(y, [x, *values], g)
        return y.detach(), dx, slopes

    return run


def _tensorflow(layer, variables, x, g):
    import tensorflow as tf

    values = [v.value for v in variables]

    @tf.function(jit_compile=True)
    def run(x, g):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        dx, *slopes = tape.gradient(y, [x, *values], g)
        return y, dx, slopes

    return lambda: run(x, g)


def _mlx(layer, variables, x, g):
    import keras
    import mlx.core as mx

    def output(x, *values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return [layer(x)]

    @mx.compile
    def both(x, g, *values):
        y, (dx, *slopes) = mx.vjp(output, [x, *values], [g])
        return y[0], dx, slopes

    def run():
        found = both(x, g, *[v.value for v in variables])
        common.wait(found)
        return found

    return run


def _numpy(layer, variables, x, g):
    return lambda: (layer(x),)


_RUNS = {"numpy": _numpy, "jax": _jax, "torch": _torch, "tensorflow": _tensorflow, "mlx": _mlx}


def _keras_hub(job, arrays):
    import ember_keras as ek  # isort: skip
    import keras
    from keras import ops
    from keras_hub.src.models.mixtral.mixtral_decoder import MixtralSparseMoeBlock

    layer = MixtralSparseMoeBlock(job["width"], job["hidden"], job["experts"], job["top_k"])
    layer.build(arrays["x"].shape)
    gate, up = np.split(arrays["gate_up"], 2, axis=2)
    bank = layer.expert_bank
    variables = [
        layer._sparse_feedforward_gate_dense.kernel,
        bank._expert_feedforward_gate_dense,
        bank._expert_feedforward_intermediate_dense,
        bank._expert_feedforward_output_dense,
    ]
    for variable, value in zip(
        variables, (arrays["router"], gate, up, arrays["down"]), strict=True
    ):
        variable.assign(value)
    x, g = ops.convert_to_tensor(arrays["x"]), ops.convert_to_tensor(arrays["g"])
    run = _RUNS[keras.backend.backend()](lambda x: layer(x)[0], variables, x, g)

    def read(found):
        y, dx, slopes = found
        y, dx, router, gate, up, down = map(ek.backend.to_numpy, (y, dx, *slopes))
        gate_up = np.concatenate([gate, up], axis=2)
        return {"y": y, "x": dx, "router": router, "gate_up": gate_up, "down": down}

    return Step(run, read)


def _transformers(job, arrays):
    import torch
    import transformers
    from transformers.models.mixtral import modeling_mixtral
    from transformers.models.qwen3_moe import modeling_qwen3_moe

    torch.set_num_threads(job["threads"])
    shared = {"hidden_size": job["width"], "num_experts_per_tok": job["top_k"]}
    if job["kind"].startswith("mixtral"):
        config = transformers.MixtralConfig(
            intermediate_size=job["hidden"], num_local_experts=job["experts"], **shared
        )
        kind = modeling_mixtral.MixtralSparseMoeBlock
    else:
        config = transformers.Qwen3MoeConfig(
            moe_intermediate_size=job["hidden"],
            num_experts=job["experts"],
            norm_topk_prob=True,
            **shared,
        )
        kind = modeling_qwen3_moe.Qwen3MoeSparseMoeBlock
    grouped = job["kind"].endswith("-grouped")
    config._experts_implementation = "grouped_mm" if grouped else "eager"
    block = kind(config)
    weights = {
        "router": (block.gate.weight, (1, 0)),
        "gate_up": (block.experts.gate_up_proj, (0, 2, 1)),
        "down": (block.experts.down_proj, (0, 2, 1)),
    }
    with torch.no_grad():
        for name, (weight, axes) in weights.items():
            weight.copy_(torch.from_numpy(arrays[name].transpose(axes).copy()))
    x = torch.from_numpy(arrays["x"]).requires_grad_(True)
    g = torch.from_numpy(arrays["g"])
    values = [weight for weight, _ in weights.values()]

    def run():
        y = block(x)
        y = y[0] if isinstance(y, tuple) else y
        dx, *slopes = torch.autograd.grad(y, [x, *values], g)
        return y.detach(), dx, slopes

    def read(found):
        y, dx, slopes = found
        results = {"y": y.numpy(), "x": dx.numpy()}
        for (name, (_, axes)), slope in zip(weights.items(), slopes, strict=True):
            results[name] = slope.numpy().transpose(axes)
        return results

    return Step(run, read)
