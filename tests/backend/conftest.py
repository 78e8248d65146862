"""Fixtures of the backend tests. `ember_keras` is imported before Keras, as mlx needs it."""

import ember_keras  # noqa: F401  isort: skip
import numpy as np
import pytest

from ember_keras import backend

FILTERS = (
    # torch's own Tensor.__array__ under numpy 2: Keras reads every torch result through it.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


def pytest_configure(config):
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture
def training_backend():
    """Skip where the backend that runs cannot train; return its name."""
    if not backend.capabilities().trains:
        pytest.skip(f"the {backend.name()} backend predicts only")
    return backend.name()


@pytest.fixture
def only_mlx():
    """Skip under any backend other than mlx."""
    if backend.name() != "mlx":
        pytest.skip("concerns the mlx backend only")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
