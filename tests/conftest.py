"""What every test shares: one backend a process, a seeded generator, a tolerance, the markers."""

import gc
import os
import random

import numpy as np
import pytest

BACKENDS = ("numpy", "torch", "jax", "tensorflow", "mlx")
BACKEND = os.environ.get("KERAS_BACKEND")


def pytest_configure(config):
    gc.set_threshold(200_000, 50, 100)  # Traces are many small objects that live long.
    if BACKEND not in BACKENDS:
        raise pytest.UsageError(
            f"KERAS_BACKEND is {BACKEND!r}; the tests run under one backend a process and never "
            f"choose it themselves. Set it to one of {', '.join(BACKENDS)}, "
            "for example: KERAS_BACKEND=jax pytest tests"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Groups the tests for `-n 2 --dist loadgroup`: a file's together, and all laws of a case.

    A case's laws follow one another, so that one built and compiled layer serves them all and is
    dropped before the next is made.
    """
    groups = [_group(item) for item in items]
    places = {group: at for at, group in reversed(list(enumerate(groups)))}
    order = sorted(range(len(items)), key=lambda at: (places[groups[at]], at))
    for item, group in zip(items, groups, strict=True):
        item.add_marker(pytest.mark.xdist_group(group))
    items[:] = [items[at] for at in order]
    if BACKEND == "numpy":
        for item in items:
            if item.get_closest_marker("trains"):
                item.add_marker(pytest.mark.skip(reason="numpy predicts only"))


def _group(item):
    case = getattr(item, "callspec", None) and item.callspec.params.get("case")
    return getattr(case, "id", None) or item.nodeid.partition("::")[0]


@pytest.fixture(autouse=True)
def same_weights_each_time():
    """Keras draws the seeds of initializers from Python's generator."""
    random.seed(0)


@pytest.fixture
def backend():
    """The name of the backend that this process runs."""
    return BACKEND


@pytest.fixture
def rng():
    """A numpy generator with the same seed for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def assert_close():
    """Compares arrays relative to the scale of the expected one; float32 unless said otherwise."""

    def check(actual, expected, tolerance=1e-4, name="value"):
        actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
        assert actual.shape == expected.shape, f"{name}: {actual.shape} is not {expected.shape}"
        scale = max(1e-6, np.max(np.abs(expected), initial=0.0))
        error = np.max(np.abs(actual - expected), initial=0.0) / scale
        assert error <= tolerance, f"{name}: relative error {error:.2e} exceeds {tolerance:.0e}"

    return check
