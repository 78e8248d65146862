"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864, equation 34)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras.backend import pad
from ember_keras.layers.base import wide
from ember_keras.ops.engines import angles


def token_positions(x: Any, length: Any, mask: Any, segment_ids: Any) -> Any:
    """The number of real positions before each position of a chunk in its segment, `(B, T)` int32.

    Args:
        x: tensor `(B, T, ...)`, the chunk.
        length: int tensor `(B,)`, what the first segment of the chunk has seen before it, or None.
        mask: bool tensor `(B, T)`, True at real positions, or None where all are.
        segment_ids: int tensor `(B, T)`, or None for one segment.
    """
    batch, time = ops.shape(x)[0], ops.shape(x)[1]
    if mask is None:
        at = ops.broadcast_to(ops.arange(time, dtype="int32"), (batch, time))
    else:
        real = ops.cast(mask, "int32")
        at = ops.cumsum(real, axis=1) - real
    if length is not None:
        at = at + ops.expand_dims(ops.cast(length, "int32"), 1)
    if segment_ids is None:
        return at
    # From the second segment on, positions count from the segment's own start.
    begins = segment_ids[:, 1:] != segment_ids[:, :-1]
    start = pad(ops.where(begins, at[:, 1:], 0), [[0, 0], [1, 0]])
    return at - running_maximum(start)


def running_maximum(x: Any) -> Any:
    """The largest of all up to each position along axis 1, of integers >= 0, in log2(T) steps."""
    step = 1
    while step < x.shape[1]:
        x = ops.maximum(x, pad(x[:, :-step], [[0, 0], [step, 0]]))
        step *= 2
    return x


def apply_rotary(x: Any, positions: Any, base: float) -> Any:
    """Turns each pair of channels by an angle that grows with the position.

    The pairs are channel i and channel i + K//2. Of an odd K, the last channel is left as it is.

    Args:
        x: float tensor `(B, T, H, K)`.
        positions: int tensor `(B, T)`.
        base: float. The slowest pair turns once in about `2 pi base` positions.

    Returns:
        Tensor of x's shape and dtype. Turned in float32, or float64 for float64, by angles that
        lose nothing to their whole turns: in float32 1e-6 at the 64 thousandth position.
    """
    half = x.shape[-1] // 2
    if half == 0:
        return x
    x_wide = wide(x)
    frequency = base ** -(np.arange(half) / half)
    parts = angles.constant_parts(frequency, keras.backend.standardize_dtype(x_wide.dtype))
    angle = angles.multiple(parts, ops.cast(positions, "int32")[:, :, None, None])
    cos, sin = ops.cos(angle), ops.sin(angle)
    a, b = x_wide[..., :half], x_wide[..., half : 2 * half]
    sides = [a * cos - b * sin, b * cos + a * sin]
    if x.shape[-1] % 2:
        sides.append(x_wide[..., 2 * half :])
    return ops.cast(ops.concatenate(sides, axis=-1), x.dtype)


def tokens_after(positions: Any, length: Any, mask: Any) -> Any:
    """How many tokens the segment that goes on after a chunk has seen, `(B,)` int32.

    Args:
        positions: int tensor `(B, T)` from `token_positions`.
        length: what `token_positions` was given.
        mask: bool tensor `(B, T)` or None.
    """
    if mask is None:
        return positions[:, -1] + 1
    size = positions.shape[1]
    at = size - 1 - ops.argmax(ops.cast(ops.flip(mask, axis=1), "int32"), axis=1)
    last = ops.take_along_axis(positions, ops.expand_dims(ops.cast(at, "int32"), 1), axis=1)[:, 0]
    before = ops.zeros_like(last) if length is None else ops.cast(length, "int32")
    return ops.where(ops.any(mask, axis=1), last + 1, before)
