"""Text out of tokens as they come: no character cut, and ended by a stop string."""

from __future__ import annotations

import codecs
import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Decode = Callable[[list[int]], bytes | str]

_TAIL = 8
"""Tokens before the new ones that a tokenizer sees, for its spaces."""

_LONGEST = 64
"""Tokens after which text that never becomes whole characters is given as it is."""


def check_stop(stop: Any, decode: Decode | None) -> tuple[str, ...]:
    """The stop strings, refused where none could ever be met."""
    if decode is not None and not callable(decode):
        raise TypeError(
            f"Received decode={decode!r}, expected a function from a list of tokens to text, such "
            "as `bytes` or a tokenizer's `decode`."
        )
    if stop is None:
        return ()
    if isinstance(stop, bytes):
        raise TypeError(f"Received stop={stop!r}, expected a str, or a list of them. Decode it.")
    if not isinstance(stop, Iterable):
        raise TypeError(f"Received stop={stop!r}, expected a str, or a list of them.")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for each in stops:
        if not isinstance(each, str):
            raise TypeError(f"Received {each!r} in `stop`, expected a str.")
        if not each:
            raise ValueError(
                "Received an empty string in `stop`, which would end at once; expected at least "
                "one character. Pass stop=None for none, or max_new_tokens=0."
            )
    if stops and decode is None:
        raise ValueError(
            f"Received stop={stop!r} without `decode`, expected a function from a list of tokens "
            "to text, such as `bytes` or a tokenizer's `decode`: a stop string is text."
        )
    return stops


class RowText:
    """The text of one row, given out as soon as it is certain.

    Args:
        decode: function of a list of tokens that returns bytes (UTF-8), or str.
        before: int array. What stands before the text.
        stops: tuple of str. The text ends before the first of them.
    """

    def __init__(self, decode: Decode, before: np.ndarray, stops: tuple[str, ...]):
        self._decode_tokens = decode
        self._stops = stops
        self._longest = max((len(stop) for stop in stops), default=1)
        self._held = ""
        self.ended = False
        self._window = [int(token) for token in before[-_TAIL:]]
        start = self._decode(self._window)
        self._utf8 = None
        if not isinstance(start, str):
            self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
            self._utf8.decode(start)  # The prompt may end within a character.
        self._shown = len(start.rstrip("\ufffd")) if isinstance(start, str) else 0

    def add(self, token: int) -> str:
        """The text that is certain after one more token."""
        self._held += self._new(int(token))
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.ended = True
            text, self._held = self._held[: min(found)[0]], ""
            return text
        keep = next(
            (
                size
                for size in range(min(self._longest - 1, len(self._held)), 0, -1)
                if any(stop.startswith(self._held[-size:]) for stop in self._stops)
            ),
            0,
        )
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return text

    def branch(self) -> RowText:
        """The same text so far, to go on in another way."""
        other = copy.copy(self)
        other._window, other._utf8 = list(self._window), copy.copy(self._utf8)
        return other

    def finish(self) -> str:
        """What was held back, at the end."""
        if self.ended:
            return ""
        if self._utf8 is not None:
            self._held += self._utf8.decode(b"", final=True)
        else:
            self._held += str(self._decode(self._window))[self._shown :]
        text, self._held, self.ended = self._held, "", True
        return text

    def _new(self, token: int) -> str:
        if self._utf8 is not None:
            piece = self._decode([token])
            if isinstance(piece, str):
                raise TypeError("Received a `decode` that returned bytes, and now str.")
            return self._utf8.decode(piece)
        self._window.append(token)
        text = str(self._decode(self._window))
        whole = text if len(self._window) > _LONGEST else text.rstrip("\ufffd")
        new, self._shown = whole[self._shown :], max(self._shown, len(whole))
        if whole == text and len(self._window) > 2 * _TAIL:
            self._window = self._window[-_TAIL:]
            self._shown = len(self._decode(self._window))
        return new

    def _decode(self, tokens: list[int]) -> bytes | str:
        text = self._decode_tokens(tokens)
        if isinstance(text, bytes | bytearray):
            return bytes(text)
        if not isinstance(text, str):
            raise TypeError(
                f"Received a `decode` that returned {type(text).__name__}, expected bytes or str."
            )
        return text


def whole_text(decode: Decode, before: np.ndarray, new: np.ndarray, stops: tuple[str, ...]) -> str:
    """The text of new tokens, as a `RowText` gives it out piece by piece."""
    row = RowText(decode, before, stops)
    pieces = []
    for token in new:
        pieces.append(row.add(int(token)))
        if row.ended:
            break
    return "".join([*pieces, row.finish()])
