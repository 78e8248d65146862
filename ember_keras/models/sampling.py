"""Drawing a token from logits, the same on every backend."""

from __future__ import annotations

import numpy as np


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Refuses settings that cannot draw anything."""
    if not temperature >= 0:
        raise ValueError(
            f"Received temperature={temperature}, expected 0 (the likeliest token) or more."
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"Received top_k={top_k}, expected at least 1, or None for all tokens.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"Received top_p={top_p}, expected above 0 and at most 1, or None.")


def sample(
    logits: np.ndarray,
    rng: np.random.Generator,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> np.ndarray:
    """Draws a token a row.

    Args:
        logits: float array `(B, V)`.
        rng: a numpy generator; one number a row is drawn from it, greedy or not.
        temperature: float >= 0. 0 takes the likeliest token, of equal ones the first.
        top_k: int or None. Only the k likeliest tokens are drawn.
        top_p: float or None. Only the likeliest tokens that together reach this probability are
            drawn (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).

    Returns:
        int32 array `(B,)`.
    """
    chance = rng.random(len(logits))
    if temperature == 0:
        return np.argmax(logits, axis=-1).astype("int32")
    logits = logits.astype("float64")
    logits = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    order = np.argsort(-logits, axis=-1, kind="stable")
    weights = np.exp(np.take_along_axis(logits, order, axis=-1))
    if top_k is not None:
        weights[:, top_k:] = 0.0
    weights /= weights.sum(axis=-1, keepdims=True)
    if top_p is not None:
        before = np.cumsum(weights, axis=-1) - weights
        weights[before >= top_p] = 0.0
    reach = np.cumsum(weights, axis=-1)
    at = (reach < (chance * reach[:, -1])[:, None]).sum(axis=-1)
    at = np.minimum(at, (weights > 0).sum(axis=-1) - 1)
    return np.take_along_axis(order, at[:, None], axis=-1)[:, 0].astype("int32")
