"""What the engine tests share: random inputs, comparison, gradients by name."""

import numpy as np
import pytest

# Ember Keras comes before Keras, which it gives the mlx backend.
from ember_keras import backend  # isort: skip
from keras import ops  # isort: skip

LENGTHS = (1, 2, 63, 100, 257)

trains = pytest.mark.trains


def rng(*seed):
    return np.random.default_rng([len(seed), *seed])


def normal(generator, *shape):
    return generator.normal(size=shape).astype("float32")


def mask_of(generator, batch, time, kind):
    """Padding of one kind; every row of more than one position keeps at least one real one."""
    mask = np.ones((batch, time), bool)
    for b in range(batch):
        cut = int(generator.integers(0, time))
        if kind == "left":
            mask[b, :cut] = False
        elif kind == "right":
            mask[b, time - cut :] = False
        elif kind == "both":
            mask[b, : cut // 2] = False
            mask[b, time - cut // 2 :] = False
        elif kind == "interior":
            mask[b] = generator.random(time) < 0.6
    return mask


def segments_of(generator, batch, time):
    """Contiguous segments with ids that rise by 1 or 2."""
    return np.cumsum(2 * (generator.random((batch, time)) < 4 / (time + 3)), axis=1).astype("int32")


def error(got, expected):
    """The greatest difference, relative to the greatest expected value."""
    got = backend.to_numpy(got).astype("float64")
    if got.shape != expected.shape:
        pytest.fail(f"shape {got.shape}; expected {expected.shape}")
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30))


def gradients(function, names, tensors, cotangent, run=None):
    """The gradients of ``sum(cotangent * function(*tensors))`` as a dict by name.

    With them comes the output itself, as ``output``; all in one call, which `run` compiles: `fast`
    where it is None, as compiling is most of the work where it is not asked for.
    """

    def both(*x):
        weigh = ops.convert_to_tensor(cotangent)
        total = backend.value_and_grad(lambda *y: ops.sum(function(*y) * weigh))
        return function(*x), total(*x)[1]

    output, found = (run or fast)(both)(*(ops.convert_to_tensor(x) for x in tensors))
    return {"output": output, **dict(zip(names, found, strict=True))}


def finite_differences(function, x, positions, step=1e-5):
    """Central differences of a scalar numpy function of one array, at some positions."""
    result = []
    for position in positions:
        up, down = x.copy(), x.copy()
        up[position] += step
        down[position] -= step
        result.append((function(up) - function(down)) / (2 * step))
    return np.array(result)


def fast(function):
    """`function` compiled where running it operation by operation would be slow to test."""
    return backend.compile(function) if backend.name() == "jax" else function


def compiled(function):
    """`function` compiled by the backend, with a count of its traces; skips where none is."""
    count = []

    def traced(*arguments):
        count.append(1)
        return function(*arguments)

    result = backend.compile(traced)
    if result is traced:
        pytest.skip(f"the {backend.name()} backend runs eagerly")
    return result, count
