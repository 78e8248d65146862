"""Tokens and text as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ember_keras.layers.base import State
from ember_keras.models.past import Past
from ember_keras.models.sampling import Sampling, Seen, require_numbers, sample
from ember_keras.models.stepping import copied, runner_of
from ember_keras.models.text import Decode, RowText


@dataclasses.dataclass(frozen=True)
class Piece:
    """What came in one turn: a token a row, and the text that is certain by it.

    Args:
        tokens: int, or for a batch int32 array `(B,)`, -1 where a row has ended.
        text: str, or for a batch a list of B of them; None without `decode`. It may be empty: a
            character may need further tokens, and a stop string may yet become whole.
    """

    tokens: Any
    text: Any = None


@dataclasses.dataclass
class Begun:
    """A model that has read its prompts.

    Args:
        model: CausalLM.
        rows: list of B int arrays. What it has read.
        single: bool. Whether it is one prompt, and no batch.
        logits: float array `(B, V)`. What it expects next.
        state: nest of tensors, which is given up.
        room: int.
    """

    model: Any
    rows: list[np.ndarray]
    single: bool
    logits: np.ndarray
    state: State
    room: int


@dataclasses.dataclass(frozen=True)
class Ending:
    """When a row ends, and how text is made of it.

    Args:
        max_new_tokens: int >= 0.
        stop_token: int or None.
        stops: tuple of str.
        decode: callable or None.
    """

    max_new_tokens: int
    stop_token: int | None = None
    stops: tuple[str, ...] = ()
    decode: Decode | None = None


class Stream(Iterator[Piece]):
    """An iterator over pieces, one a new token; `model.stream` makes it.

    `past()` gives, at any time, what the model has read and written so far.

    Args:
        begun: Begun.
        sampling: Sampling.
        seed: int or None.
        ending: Ending.
        turns: int. Tokens that may be made in one call; above 1 there is no `past`.
    """

    def __init__(
        self,
        begun: Begun,
        sampling: Sampling,
        seed: int | None,
        ending: Ending,
        turns: int = 1,
    ):
        self._begun, self._sampling, self._ending = begun, sampling, ending
        self._runner = runner_of(begun.model)
        self._weights = self._runner.weights()
        self._turns = turns if sampling.is_greedy else 1
        self._rng = np.random.default_rng(seed)
        self._logits, self._state = begun.logits, begun.state
        self._seen = Seen(begun.rows, begun.model.vocab_size, sampling.repetition_penalty)
        count = len(begun.rows)
        self._last = np.zeros(count, "int32")
        self._unread = np.zeros(count, dtype=bool)
        self._running = np.ones(count, dtype=bool)
        self._added: list[list[int]] = [[] for _ in begun.rows]
        self._texts = None
        if ending.decode is not None:
            self._texts = [RowText(ending.decode, row, ending.stops) for row in begun.rows]
        self._pieces = self._run()

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def is_single(self) -> bool:
        """Whether it is one prompt, and no batch."""
        return self._begun.single

    @property
    def tokens(self) -> list[np.ndarray]:
        """int32 arrays, a row each: the prompt and what has followed so far."""
        return [
            np.concatenate([row, np.asarray(added, "int32")])
            for row, added in zip(self._begun.rows, self._added, strict=True)
        ]

    def past(self) -> Past:
        """What the model has read and written so far, to continue or to save."""
        if self._unread.any():
            self._read()
        begun = self._begun
        state = copied(self._state)
        return Past(begun.model, self.tokens, self._logits, state, begun.room, begun.single)

    def _run(self) -> Iterator[Piece]:
        done, most = 0, self._ending.max_new_tokens
        while done < most and self._running.any():
            for tokens in self._next(most - done):
                done += 1
                yield self._piece(tokens, done == most)
                if not self._running.any():
                    break

    def _piece(self, tokens: np.ndarray, is_last: bool) -> Piece:
        """Notes a token a row."""
        new = np.where(self._running, tokens, -1).astype("int32")
        texts = [""] * len(new)
        for row in np.flatnonzero(self._running):
            token = int(new[row])
            self._added[row].append(token)
            stops = token == self._ending.stop_token
            if self._texts is not None:
                text = self._texts[row]
                texts[row] = "" if stops else text.add(token)
                stops = stops or text.ended
                if stops or is_last:
                    texts[row] += text.finish()
            self._running[row] = not stops
        if self._begun.single:
            return Piece(int(new[0]), texts[0] if self._texts is not None else None)
        return Piece(new, texts if self._texts is not None else None)

    def _next(self, left: int) -> list[np.ndarray]:
        """The next tokens, one array `(B,)` or several."""
        if self._unread.any():
            if 1 < self._turns <= left:
                found, self._state = self._runner.turns(self._weights, self._last, self._state)
                if (found[self._running] < 0).any():
                    require_numbers(np.full((1, 1), np.nan))
                self._last = np.ascontiguousarray(found[:, -1])
                return list(found.T)
            self._read()
        token = sample(self._seen.penalised(self._logits), self._rng, self._sampling)
        self._seen.add(token)
        self._last, self._unread = token, self._running.copy()
        return [token]

    def _read(self) -> None:
        """Lets the model read the last token of each row that has one unread."""
        read, runner = self._unread, self._runner
        some = None if read.all() or self._turns > 1 else read
        logits, self._state = runner.step(self._weights, self._last, self._state, some)
        self._logits = logits if some is None else np.where(read[:, None], logits, self._logits)
        self._unread = np.zeros_like(read)
