"""Targets and statistics of time series: labels, numbers, scales, the nearest neighbour."""

from __future__ import annotations

import numpy as np


def mean_and_scale(
    values: np.ndarray, known: np.ndarray, axes: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Means and standard deviations of what is known; 0 and 1 where nothing is, or varies."""
    count = np.maximum(known.sum(axis=axes), 1)
    mean = values.sum(axis=axes) / count
    scale = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=axes) / count)
    scale = np.where(scale > 1e-12 * (1 + np.abs(mean)), scale, 1.0)
    return mean.tolist(), scale.tolist()


def real_targets(y: np.ndarray, source: str) -> np.ndarray:
    try:
        targets = np.asarray(y, np.float64).reshape(len(y), -1)
    except ValueError as error:
        raise ValueError(
            f"Received targets that are no numbers in {source} ({error}); expected numbers for "
            "target='regression'. Use target='classification' for labels."
        ) from None
    if not np.isfinite(targets).all() or targets.shape[1] == 0:
        sample = int(np.argwhere(~np.isfinite(targets))[0][0]) if targets.shape[1] else 0
        raise ValueError(
            f"Received the target {y[sample]} at sample {sample} of {source}; expected finite "
            "numbers. Leave such samples out."
        )
    return targets


def labels(y: np.ndarray, source: str) -> list[str]:
    """Labels as strings, `(N,)`; whole numbers without a decimal point."""
    if y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1):
        raise ValueError(
            f"Received `y` of shape {y.shape} in {source}; expected one label a sample, "
            "(samples,). Give class numbers instead of one-hot rows, or use target='regression'."
        )
    y = y.reshape(len(y))
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.round(y))).all():
        sample = int(np.argwhere(~(np.isfinite(y) & (y == np.round(y))))[0][0])
        raise ValueError(
            f"Received the label {y[sample]} at sample {sample} of {source}; expected whole "
            "numbers or strings. Use target='regression' for other numbers."
        )
    if y.dtype.kind in "fiub":
        return y.astype(np.int64).astype(str).tolist()
    if y.dtype.kind not in "US":
        raise ValueError(
            f"Received `y` of type {y.dtype} in {source}; expected whole numbers or strings. "
            "Convert it."
        )
    found = y.astype(str).tolist()
    if "" in found:
        raise ValueError(
            f"Received an empty label at sample {found.index('')} of {source}; expected a label "
            "for every sample. Fill it in, or leave the sample out."
        )
    return found


def in_order(found: list[str]) -> list[str]:
    """The different labels, sorted as numbers where all are numbers, else as text."""
    different = sorted(set(found))
    try:
        return sorted(different, key=float)
    except ValueError:
        return different


def nearest_rows(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The number of the nearest of `rows` `(N, ...)` to each of `queries` `(M, ...)`, `(M,)`."""
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    squares = (rows**2).sum(axis=1)
    found = [
        (squares - 2 * part.reshape(len(part), -1).astype(np.float64) @ rows.T).argmin(axis=1)
        for part in np.array_split(queries, -(-len(queries) // 256))
    ]
    return np.concatenate(found)
