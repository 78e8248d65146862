"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864, equation 34)."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ember_keras.backend import pad
from ember_keras.layers.base import wide
from ember_keras.ops.engines import angles
from ember_keras.ops.engines.timeline import running_maximum


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


def frequencies(pairs: int, base: float, scaling: dict[str, float] | None = None) -> np.ndarray:
    """The angle of each pair of channels at position 1, in float64.

    Args:
        pairs: int, how many pairs of channels are turned.
        base: float. The slowest pair turns once in about `2 pi base` positions.
        scaling: dict or None, as `Attention` takes it.
    """
    angle = base ** -(np.arange(pairs) / pairs)
    if scaling is None:
        return angle
    slowed = angle / scaling["factor"]
    if len(scaling) == 1:
        return slowed
    low, high = scaling["low_frequency_factor"], scaling["high_frequency_factor"]
    turns = scaling["original_length"] * angle / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * angle + (1.0 - kept) * slowed


def require_scaling(name: str, scaling: dict[str, float] | None) -> None:
    """Refuses a `rotary_scaling` that is neither of the two kinds that `Attention` knows."""
    if scaling is None:
        return
    keys = {"factor", "low_frequency_factor", "high_frequency_factor", "original_length"}
    if set(scaling) not in ({"factor"}, keys):
        raise ValueError(
            f"`{name}` received rotary_scaling with the keys "
            f"{', '.join(sorted(scaling)) or '(none)'}, expected "
            f"`factor` alone, or all of {', '.join(sorted(keys))}."
        )
    if not all(0 < value < math.inf for value in scaling.values()):
        raise ValueError(
            f"`{name}` received rotary_scaling={dict(scaling)}, expected numbers above 0."
        )
    if len(scaling) > 1 and scaling["low_frequency_factor"] >= scaling["high_frequency_factor"]:
        raise ValueError(
            f"`{name}` received rotary_scaling={dict(scaling)}, expected a low_frequency_factor "
            "below the high_frequency_factor."
        )


def apply_rotary(
    x: Any,
    positions: Any,
    base: float,
    scaling: dict[str, float] | None = None,
    channels: int | None = None,
) -> Any:
    """Turns each pair of channels by an angle that grows with the position.

    The pairs are channel i and channel i + K//2. Of an odd K, the last channel is left as it is.

    Args:
        x: float tensor `(B, T, H, K)`.
        positions: int tensor `(B, T)`.
        base: float. The slowest pair turns once in about `2 pi base` positions.
        scaling: dict or None, as `Attention` takes it.
        channels: int or None. How many channels, the first, take the place of K; the others are
            left as they are.

    Returns:
        Tensor of x's shape and dtype. Turned in float32, or float64 for float64, by angles that
        lose nothing to their whole turns: in float32 1e-6 at the 64 thousandth position.
    """
    half = (x.shape[-1] if channels is None else channels) // 2
    if half == 0:
        return x
    x_wide = wide(x)
    frequency = frequencies(half, base, scaling)
    parts = angles.constant_parts(frequency, keras.backend.standardize_dtype(x_wide.dtype))
    angle = angles.multiple(parts, ops.cast(positions, "int32")[:, :, None, None])
    cos, sin = ops.cos(angle), ops.sin(angle)
    a, b = x_wide[..., :half], x_wide[..., half : 2 * half]
    sides = [a * cos - b * sin, b * cos + a * sin]
    if x.shape[-1] > 2 * half:
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
