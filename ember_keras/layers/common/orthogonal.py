"""How recurrent kernels start."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def orthogonal(shape: Any, dtype: Any = None) -> Any:
    """A random matrix with orthogonal rows, drawn in float32 whatever the dtype of the weight."""
    return ops.cast(keras.initializers.Orthogonal()(shape, "float32"), dtype or "float32")
