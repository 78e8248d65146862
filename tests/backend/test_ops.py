"""Values and gradients of the ops in `op_cases`, against numpy in float64, on every backend."""

import numpy as np
import pytest
from keras import ops, tree
from op_cases import CASES, NAMES

from ember_keras import backend


def inputs(name, shapes):
    """Return the seeded float64 inputs of a case, rounded to float32 values."""
    rng = np.random.default_rng(sum(map(ord, name)))
    drawn = [shape(rng) if callable(shape) else rng.normal(size=shape) for shape in shapes]
    return [np.asarray(array, "float32").astype("float64") for array in drawn]


def weighted(outputs, weights, total):
    """Return the sum over all outputs of weight times output."""
    flat = tree.flatten(outputs)
    return sum(total(weight * out) for weight, out in zip(weights, flat, strict=True))


def numeric_gradient(fn, arrays, step=1e-5):
    """Return central differences of the scalar `fn` for every element of every array."""
    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + step
            high = fn(*arrays)
            array[at] = kept - step
            low = fn(*arrays)
            array[at] = kept
            gradient[at] = (high - low) / (2 * step)
        gradients.append(gradient)
    return gradients


def close(actual, expected, tolerance):
    """Fail where `actual` and `expected` differ by more than `tolerance` of their scale."""
    actual = backend.to_numpy(actual)
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    worst = float(np.abs(actual - expected).max(initial=0.0)) / scale
    assert worst <= tolerance


CUT = "no gradient of a transform that cuts its input: tensorflow/tensorflow#108479"
BROKEN_GRADIENTS = {
    ("jax", "while_loop"): "no reverse gradient of a while loop: keras-team/keras#18957",
    ("tensorflow", "cumprod_zero"): "divides by a factor of zero: tensorflow/tensorflow#119430",
    ("tensorflow", "slice_update"): "XlaDynamicUpdateSlice has none: tensorflow/tensorboard#5311",
    ("tensorflow", "rfft_8_to_5"): CUT,
    ("tensorflow", "rfft_7_to_4"): CUT,
    ("tensorflow", "irfft_5_to_5"): CUT,
    ("tensorflow", "irfft_6_to_3"): CUT,
}
"""(backend, case) -> what is wrong upstream, and where: noticed once it works."""

COMPILED = (
    "einsum_attention",
    "take_along_axis",
    "slice_update",
    "scan",
    "dot_product_attention_causal",
    "depthwise_conv_causal",
    "s4d_kernel",
    "fft_convolution",
    "associative_scan_7",
)
"""The cases that are compiled too where running them eagerly is the quicker way."""


def expect_broken(request, name):
    """Mark the test as an expected failure where `BROKEN_GRADIENTS` lists it."""
    reason = BROKEN_GRADIENTS.get((backend.name(), name))
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_value(case):
    name, op, twin, shapes = case
    arrays = inputs(name, shapes)
    run = backend.compile(op) if backend.name() == "jax" else op
    actual = tree.flatten(run(*[ops.convert_to_tensor(a, "float32") for a in arrays]))
    expected = tree.flatten(twin(*arrays))
    assert len(actual) == len(expected)
    for got, want in zip(actual, expected, strict=True):
        close(got, want, 2e-5)


def check_gradient(case, compiled):
    """Compare value and gradients of a case with central differences of its twin."""
    name, op, twin, shapes = case
    arrays = inputs(name, shapes)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=np.shape(out)) for out in tree.flatten(twin(*arrays))]
    expected = numeric_gradient(lambda *a: weighted(twin(*a), weights, np.sum), arrays)
    tensors = [ops.convert_to_tensor(array, "float32") for array in arrays]
    constants = [ops.convert_to_tensor(weight, "float32") for weight in weights]
    fn = backend.value_and_grad(lambda *a: weighted(op(*a), constants, ops.sum))
    value, gradients = (backend.compile(fn) if compiled else fn)(*tensors)
    close(value, np.asarray(weighted(twin(*arrays), weights, np.sum)), 5e-5)
    for got, want in zip(gradients, expected, strict=True):
        close(got, want, 5e-5)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_gradient(case, training_backend, request):
    expect_broken(request, case[0])
    check_gradient(case, compiled=training_backend == "jax")


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_gradient(name, training_backend, request):
    if training_backend in ("jax", "torch"):
        pytest.skip(f"under {training_backend} test_gradient compiles all it can")
    expect_broken(request, name)
    check_gradient(CASES[NAMES.index(name)], compiled=True)
