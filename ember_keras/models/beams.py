"""Beam search over a model's state."""

from __future__ import annotations

from typing import Any

import numpy as np

from ember_keras.models.sampling import Seen, require_numbers
from ember_keras.models.stepping import runner_of
from ember_keras.models.stream import Begun, Ending
from ember_keras.models.text import RowText


class _Search:
    """The beams of one prompt.

    Args:
        beams: int.
        length_penalty: float.
        ending: Ending. When a continuation ends.
        prompt: int array. What stands before.
    """

    def __init__(self, beams: int, length_penalty: float, ending: Ending, prompt: np.ndarray):
        self.beams, self.length_penalty = beams, length_penalty
        self.longest, self.stop_token = ending.max_new_tokens, ending.stop_token
        self.texts: list[RowText] | None = None
        if ending.decode is not None and ending.stops:
            self.texts = [RowText(ending.decode, prompt, ending.stops)]
        self.scores = np.zeros(1)
        self.tokens = np.zeros((1, 0), "int32")
        self.best: tuple[float, np.ndarray] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing that runs can beat the best that has ended."""
        length = self.tokens.shape[1]
        if length == self.longest or not len(self.scores):
            return True
        if self.best is None:
            return False
        top = self.scores[0]
        return self.best[0] >= max(self._score(top, n) for n in (length + 1, self.longest))

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self.length_penalty)

    def advance(self, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Goes one token on.

        Args:
            chances: float64 array `(beams, V)`, the log-probabilities of what follows each.

        Returns:
            int arrays `(beams,)`: the beam that each new one continues, and its new token. Fewer
            than `beams` where no more can run on.
        """
        total = self.scores[:, None] + chances[: len(self.scores)]
        vocab_size = total.shape[1]
        # As many may end as there are beams, and none of the others be needed beyond.
        flat = total.ravel()
        count = min(2 * self.beams, int((flat > -np.inf).sum()))
        if count == 0:
            self.scores = np.zeros(0)
            return np.zeros(0, "int64"), np.zeros(0, "int64")
        least = np.partition(flat, -count)[-count]
        places = np.flatnonzero(flat >= least)
        places = places[np.argsort(-flat[places], kind="stable")][:count]
        parents, tokens = places // vocab_size, places % vocab_size
        grown = np.concatenate([self.tokens[parents], tokens[:, None]], axis=1).astype("int32")
        ended = tokens == (-1 if self.stop_token is None else self.stop_token)
        texts = self._grown_texts(parents, tokens)
        if texts is not None:
            ended = ended | np.array([text.ended for text in texts])
        if grown.shape[1] == self.longest:
            ended = np.ones_like(ended)
        for place, row in zip(places[ended], grown[ended], strict=True):
            score = self._score(flat[place], len(row))
            if self.best is None or score > self.best[0]:
                self.best = (score, row)
        running = np.flatnonzero(~ended)[: self.beams]
        self.scores = flat[places[running]]
        if len(running):
            self.tokens = grown[running]
        if texts is not None:
            self.texts = [texts[place] for place in running]
        return parents[running], tokens[running]

    def _grown_texts(self, parents: np.ndarray, tokens: np.ndarray) -> list[RowText] | None:
        """The text of each candidate, where there are stop strings to look for."""
        if self.texts is None:
            return None
        texts = [self.texts[parent].branch() for parent in parents]
        for text, token in zip(texts, tokens, strict=True):
            text.add(int(token))
        return texts


def beam_search(
    begun: Begun,
    ending: Ending,
    beams: int,
    length_penalty: float,
    repetition_penalty: float | None,
) -> list[np.ndarray]:
    """The best continuation of each prompt, int32 arrays.

    Args:
        begun: Begun, of B prompts.
        ending: Ending. When a continuation ends.
        beams: int >= 1.
        length_penalty: float.
        repetition_penalty: float or None.
    """
    if ending.max_new_tokens == 0:
        return [np.zeros(0, "int32") for _ in begun.rows]
    runner = runner_of(begun.model)
    weights, count = runner.weights(), len(begun.rows)
    searches = [_Search(beams, length_penalty, ending, row) for row in begun.rows]
    seen = Seen(begun.rows, begun.model.vocab_size, repetition_penalty)
    logits, state = begun.logits, begun.state
    first, width = np.arange(count), 1
    while True:
        chances = _log_chances(seen.penalised(logits))
        parents = np.repeat(first, beams)
        tokens = np.zeros(count * beams, "int32")
        for number, search in enumerate(searches):
            if search.done:
                continue
            before, new = search.advance(chances[number * width : (number + 1) * width])
            place = slice(number * beams, number * beams + len(new))
            parents[place] = number * width + before
            tokens[place] = new
        if all(search.done for search in searches):
            break
        if width != beams or (parents != np.arange(len(parents))).any():
            state = runner.select(state, parents, begun.room)
            seen.select(parents)
        first, width = np.arange(count) * beams, beams
        logits, state = runner.step(weights, tokens, state)
        seen.add(tokens)
    return [_best(search) for search in searches]


def _best(search: _Search) -> np.ndarray:
    if search.best is None:
        raise ValueError("The model's logits leave no token that could follow.")
    return search.best[1]


def _log_chances(logits: np.ndarray) -> Any:
    require_numbers(logits)
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
