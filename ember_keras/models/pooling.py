"""Poolings over time that can go on from where they stopped."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras.layers.base import State, wide, wide_dtype


def initial_pool(batch_size: int, width: int, pooling: str, dtype: str) -> State:
    """The state of a pooling before the first position: a value, and the positions seen.

    The value is float32 or wider, for positions of `dtype`.
    """
    start = -float("inf") if pooling == "max" else 0.0
    return {
        "value": ops.full((batch_size, width), start, dtype=wide_dtype(dtype)),
        "count": ops.zeros((batch_size,), dtype="int32"),
    }


def pool(x: Any, mask: Any, state: State | None, pooling: str) -> tuple[Any, State]:
    """Pools `(B, T, D)` over its real positions and those of the state, to `(B, D)`.

    The result is float32 or wider. A row without any real position gives zeros.
    """
    x = wide(x)
    batch, time = ops.shape(x)[0], ops.shape(x)[1]
    if state is None:
        state = initial_pool(batch, x.shape[-1], pooling, keras.backend.standardize_dtype(x.dtype))
    if mask is None:
        mask = ops.ones((batch, time), dtype="bool")
    here = ops.expand_dims(mask, -1)
    count = state["count"] + ops.sum(ops.cast(mask, "int32"), axis=1)
    if pooling == "mean":
        value = state["value"] + ops.sum(ops.where(here, x, 0.0), axis=1)
        result = value / ops.expand_dims(ops.cast(ops.maximum(count, 1), x.dtype), -1)
    elif pooling == "max":
        value = ops.maximum(state["value"], ops.max(ops.where(here, x, -float("inf")), axis=1))
        result = ops.where(ops.expand_dims(count > 0, -1), value, 0.0)
    else:
        rank = ops.cumsum(ops.cast(mask, "int32"), axis=1)
        last = ops.logical_and(mask, rank == rank[:, -1:])
        value = ops.sum(ops.where(ops.expand_dims(last, -1), x, 0.0), axis=1)
        value = ops.where(ops.any(mask, axis=1)[:, None], value, state["value"])
        result = value
    return result, {"value": value, "count": count}
