"""Drawing a token from logits, the same on every backend."""

from __future__ import annotations

import dataclasses

import numpy as np

from ember_keras.layers.arguments import is_finite


def is_whole(value: object, least: int) -> bool:
    """Whether a value is an integer of at least `least`."""
    known = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return known and int(value) >= least  # type: ignore[call-overload]


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    known = isinstance(value, int | float | np.integer | np.floating)
    return known and not isinstance(value, bool) and is_finite(value)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is drawn; what cannot draw anything is refused.

    The penalty comes first, then the temperature, then `top_k`, `top_p` and `min_p`, each of the
    tokens that those before it left.

    Args:
        temperature: float >= 0. 0 takes the likeliest token, of equal ones the first.
        top_k: int or None. Only the k likeliest tokens are drawn, of equal ones the first.
        top_p: float or None. Only the likeliest tokens that together reach this probability are
            drawn (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).
        min_p: float or None. Only tokens of at least this share of the likeliest one's probability
            are drawn (Nguyen et al. 2024, arXiv 2407.01082, section 3).
        repetition_penalty: float or None. Above 1 makes tokens that stand in the row before less
            likely: their positive logits are divided by it (Keskar et al. 2019, arXiv 1909.05858,
            section 4.1), and negative ones, which that would raise, multiplied.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"Received temperature={self.temperature!r}, expected 0 (the likeliest token) or "
                "more, and a finite number."
            )
        if self.top_k is not None and not is_whole(self.top_k, 1):
            raise ValueError(
                f"Received top_k={self.top_k!r}, expected an integer of at least 1, or None for "
                "all tokens."
            )
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and 0 < value <= 1):
                raise ValueError(
                    f"Received {name}={value!r}, expected a number above 0 and at most 1, or None."
                )
        penalty = self.repetition_penalty
        if penalty is not None and not (is_number(penalty) and penalty > 0):
            raise ValueError(
                f"Received repetition_penalty={penalty!r}, expected a finite number above 0, or "
                "None."
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token follows, whatever stands before."""
        return self.temperature == 0 and self.repetition_penalty in (None, 1)


class Seen:
    """The tokens that stand in each row, for the repetition penalty.

    Args:
        rows: list of B int arrays. The tokens so far.
        vocab_size: int, V.
        penalty: float or None.
    """

    def __init__(self, rows: list[np.ndarray], vocab_size: int, penalty: float | None):
        self.penalty = None if penalty == 1 else penalty
        if self.penalty is not None:
            self.there = np.zeros((len(rows), vocab_size), dtype=bool)
            for row, tokens in zip(self.there, rows, strict=True):
                row[tokens] = True

    def add(self, tokens: np.ndarray) -> None:
        """Notes a token `(B,)` a row."""
        if self.penalty is not None:
            self.there[np.arange(len(tokens)), tokens] = True

    def select(self, rows: np.ndarray) -> None:
        """Takes the rows of these numbers in place of its own."""
        if self.penalty is not None:
            self.there = self.there[rows]

    def penalised(self, logits: np.ndarray) -> np.ndarray:
        """Logits `(B, V)` with the penalty."""
        if self.penalty is None:
            return logits
        less = np.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return np.where(self.there, less, logits)


def require_numbers(logits: np.ndarray) -> None:
    """Refuses logits `(B, V)` out of which nothing can be drawn."""
    top = logits.max(axis=-1)  # NaN where one is.
    if not np.isfinite(top).all():
        row = int(np.argmin(np.isfinite(top)))
        raise ValueError(
            f"The model's logits of row {row} have {top[row]} as their greatest, expected finite "
            "numbers. Look for NaN or infinity in its weights, or at a learning rate that was too "
            "high; with half precision, try float32."
        )


def sample(logits: np.ndarray, rng: np.random.Generator, sampling: Sampling) -> np.ndarray:
    """Draws a token a row.

    Args:
        logits: float array `(B, V)`, penalised already.
        rng: a numpy generator; one number a row is drawn from it, greedy or not.
        sampling: Sampling.

    Returns:
        int32 array `(B,)`.
    """
    require_numbers(logits)
    chance = rng.random(len(logits))
    if sampling.temperature == 0:
        return np.argmax(logits, axis=-1).astype("int32")
    rows = zip(logits, chance, strict=True)
    return np.array([_draw(row, part, sampling) for row, part in rows], dtype="int32")


def _draw(logits: np.ndarray, chance: float, sampling: Sampling) -> int:
    """The token at which the sum of probabilities, in the order of tokens, reaches `chance`.

    That order, and none by probability, keeps a draw the same where two backends round otherwise.
    """
    tokens = np.arange(len(logits))
    if sampling.top_k is not None and sampling.top_k < len(logits):
        least = np.partition(logits, -sampling.top_k)[-sampling.top_k]
        tokens = np.flatnonzero(logits >= least)
        if len(tokens) > sampling.top_k:  # Of those that equal the least, the first.
            tokens = np.sort(tokens[np.argsort(-logits[tokens], kind="stable")[: sampling.top_k]])
    chosen = logits[tokens].astype("float64")
    weights = np.exp((chosen - chosen.max()) / sampling.temperature)
    if sampling.top_p is not None:
        keep = _nucleus(weights / weights.sum(), sampling.top_p)
        tokens, weights = tokens[keep], weights[keep]
    if sampling.min_p is not None:
        keep = weights >= sampling.min_p * weights.max()
        tokens, weights = tokens[keep], weights[keep]
    reach = np.cumsum(weights)
    at = int(np.searchsorted(reach, chance * reach[-1], side="right"))
    return int(tokens[min(at, np.flatnonzero(weights)[-1])])


def _nucleus(chances: np.ndarray, top_p: float) -> np.ndarray:
    """The places, in order, of the fewest chances that together reach `top_p`."""
    # What is below this sums up to less than 1 - top_p, so that it is not needed.
    likely = np.flatnonzero(chances >= (1.0 - top_p) / len(chances))
    order = likely[np.argsort(-chances[likely], kind="stable")]
    before = np.cumsum(chances[order]) - chances[order]
    return np.sort(order[before < top_p])
