"""Starting values of the decays of selective mixers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops


def log_rates(shape: Any, dtype: Any = None) -> Any:
    """The logs of decay rates from 1 to 16, evenly spaced where the papers draw them at random."""
    return ops.cast(np.log(np.linspace(1.0, 16.0, shape[0])), dtype or "float32")


def step_biases(shape: Any, dtype: Any = None) -> Any:
    """Biases whose softplus is 0.001 to 0.1, evenly spaced in logs where the papers draw them."""
    steps = np.exp(np.linspace(math.log(0.001), math.log(0.1), shape[0]))
    return ops.cast(steps + np.log(-np.expm1(-steps)), dtype or "float32")
