"""Generation token by token, through the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ember_keras import backend
from ember_keras.layers.base import Mixin
from ember_keras.models.beams import beam_search
from ember_keras.models.past import Past
from ember_keras.models.sampling import Sampling, is_number, is_whole
from ember_keras.models.stepping import CHUNK, room_for, runner_of
from ember_keras.models.stream import Begun, Ending, Stream
from ember_keras.models.text import Decode, check_stop
from ember_keras.ops.kernels.loops import turns_a_call


class Generation(Mixin):
    """Adds generation to a model of the next token."""

    def read(self, prompt: Any, *, past: Past | None = None, max_length: int | None = None) -> Past:
        """Reads a prompt, once, for any number of continuations.

        Args:
            prompt: what `generate` takes.
            past: Past or None. What stands before the prompt.
            max_length: int or None. Positions that the continuations will have, the prompt among
                them; a longer one is no error, but reads the prompt again. None for the prompt
                and 256 more. Models whose state has no length need none.

        Returns:
            A `Past`, for the `past` of the other methods.
        """
        rows, _ = _rows(self, prompt, past)
        longest = max(len(row) for row in rows) + (0 if past is None else _longest(past))
        if max_length is None:
            max_length = longest + 256
        if not is_whole(max_length, longest):
            raise ValueError(
                f"Received max_length={max_length!r} and a prompt of {longest} tokens, expected an "
                "integer with room for it at least. Give more, or None."
            )
        begun = self._begin(prompt, past, max_length - longest)
        return Past(self, begun.rows, begun.logits, begun.state, begun.room, begun.single)

    def generate(
        self,
        prompt: Any,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop_token: int | None = None,
        callback: Callable[[np.ndarray], None] | None = None,
        *,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        decode: Decode | None = None,
        past: Past | None = None,
        return_past: bool = False,
    ) -> Any:
        """Continues a prompt: it is read once, and every new token is one `step`.

        Args:
            prompt: list of int, int array `(T,)`, or a batch of them: `(B, T)`, or a list of B
                lists that may differ in length. At least one token each, unless there is a `past`.
            max_new_tokens: int >= 0. How many tokens are added at most.
            temperature: float >= 0. Above 1 is more random; 0 takes the likeliest token.
            top_k: int or None. Only the k likeliest tokens are drawn.
            top_p: float or None. Only the likeliest tokens that together reach this probability
                are drawn.
            seed: int or None. The same seed draws the same tokens from the same logits, on any
                backend.
            stop_token: int or None. A row ends with it.
            callback: callable or None. Called after each token with an int array `(B,)`: the new
                token of each row, or -1 where the row has ended.
            min_p: float or None. Only tokens of at least this share of the likeliest one's
                probability are drawn (arXiv 2407.01082).
            repetition_penalty: float > 0 or None. Above 1 makes tokens that stand in the row
                before, in its prompt too, less likely (arXiv 1909.05858, section 4.1).
            stop: str, list of str or None. A row ends with the token that makes one whole. Needs
                `decode`.
            decode: callable or None. From a list of tokens to bytes (UTF-8) or str: `bytes` for a
                model of bytes, or a tokenizer's `decode`.
            past: Past or None. What stands before the prompt, from `read` or an earlier call. One
                row serves any number of prompts. It stays as it is.
            return_past: bool. Gives `(tokens, past)`, to be continued.

        Returns:
            int32 array of the past, the prompt and what follows, or, for a batch, a list of B such
            arrays.
        """
        stream = self._stream(
            prompt,
            Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
            Ending(max_new_tokens, stop_token, check_stop(stop, decode), decode),
            seed,
            past,
            1 if callback is not None or return_past else turns_a_call(),
        )
        for piece in stream:
            if callback is not None:
                callback(np.atleast_1d(np.asarray(piece.tokens, "int32")))
        tokens = stream.tokens[0] if stream.is_single else stream.tokens
        return (tokens, stream.past()) if return_past else tokens

    def stream(
        self,
        prompt: Any,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop_token: int | None = None,
        *,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        decode: Decode | None = None,
        past: Past | None = None,
    ) -> Stream:
        """Continues a prompt, and gives each token as it comes, with its text.

        Args:
            prompt: and all others, what `generate` takes.

        Returns:
            An iterator over pieces. `piece.tokens` is the new token, or, for a batch, an int32
            array `(B,)`, -1 where a row has ended. With `decode`, `piece.text` is the text that is
            certain by now, or, for a batch, a list of B such strings: no character of several
            bytes is cut, and the text ends before a stop string, also where tokens share it. The
            iterator's `past()` gives what the model has read and written so far.
        """
        return self._stream(
            prompt,
            Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
            Ending(max_new_tokens, stop_token, check_stop(stop, decode), decode),
            seed,
            past,
            1,
        )

    def generate_text(self, prompt: Any, decode: Decode, **options: Any) -> Any:
        """Continues a prompt, and gives the text that follows it.

        Args:
            prompt: what `generate` takes.
            decode: callable. From a list of tokens to bytes (UTF-8) or str.
            **options: those of `stream`.

        Returns:
            str, or, for a batch, a list of B of them: what follows the prompt, up to a stop string.
        """
        stream = self.stream(prompt, decode=decode, **options)
        texts = [piece.text for piece in stream]
        if stream.is_single:
            return "".join(texts)
        return ["".join(row) for row in zip(*texts, strict=True)] or [""] * len(stream.tokens)

    def beam_search(
        self,
        prompt: Any,
        max_new_tokens: int = 128,
        beams: int = 4,
        length_penalty: float = 1.0,
        stop_token: int | None = None,
        *,
        repetition_penalty: float | None = None,
        stop: str | Sequence[str] | None = None,
        decode: Decode | None = None,
        past: Past | None = None,
    ) -> Any:
        """Looks for the likeliest continuation: the `beams` likeliest so far are all continued.

        A continuation of n tokens and log-probability s has the score `s / n ** length_penalty`.
        The search ends when nothing that still runs can beat the best that has ended. Of equal
        scores the one of the earlier beam, then of the lower token, is taken.

        Args:
            prompt: what `generate` takes.
            max_new_tokens: int >= 0. How many tokens are added at most.
            beams: int, 1 to `vocab_size`. Continuations that are kept; 1 is greedy, until one has
                ended.
            length_penalty: float. Above 0 favours longer continuations, below 0 shorter ones.
            stop_token: int or None. A continuation ends with it.
            repetition_penalty: float > 0 or None, as for `generate`.
            stop: str, list of str or None. A continuation ends with the token that makes one whole.
                Needs `decode`.
            decode: callable or None, as for `generate`.
            past: Past or None. What stands before the prompt.

        Returns:
            int32 array of the past, the prompt and the best that follows, or, for a batch, a list
            of B such arrays.
        """
        if not is_whole(beams, 1) or beams > self.vocab_size:
            raise ValueError(
                f"Received beams={beams!r}, expected an integer from 1 to vocab_size="
                f"{self.vocab_size}: no more continuations differ in their first token."
            )
        if not is_number(length_penalty):
            raise ValueError(
                f"Received length_penalty={length_penalty!r}, expected a finite number."
            )
        sampling = Sampling(repetition_penalty=repetition_penalty)
        self._check_ending(max_new_tokens, stop_token)
        ending = Ending(max_new_tokens, stop_token, check_stop(stop, decode), decode)
        begun = self._begin(prompt, past, max_new_tokens)
        found = beam_search(begun, ending, beams, length_penalty, sampling.repetition_penalty)
        whole = [np.concatenate(pair) for pair in zip(begun.rows, found, strict=True)]
        return whole[0] if begun.single else whole

    def _stream(
        self,
        prompt: Any,
        sampling: Sampling,
        ending: Ending,
        seed: int | None,
        past: Past | None,
        turns: int,
    ) -> Stream:
        if seed is not None and not is_whole(seed, 0):
            raise ValueError(f"Received seed={seed!r}, expected an integer of 0 or more, or None.")
        self._check_ending(ending.max_new_tokens, ending.stop_token)
        begun = self._begin(prompt, past, ending.max_new_tokens)
        return Stream(begun, sampling, seed, ending, turns)

    def _check_ending(self, max_new_tokens: int, stop_token: int | None) -> None:
        if not is_whole(max_new_tokens, 0):
            raise ValueError(
                f"Received max_new_tokens={max_new_tokens!r}, expected an integer of 0 or more."
            )
        if stop_token is not None and (
            not is_whole(stop_token, 0) or stop_token >= self.vocab_size
        ):
            raise ValueError(
                f"Received stop_token={stop_token!r}, expected an integer from 0 to "
                f"{self.vocab_size - 1}, or None."
            )

    def _begin(self, prompt: Any, past: Past | None, more: int) -> Begun:
        """Reads the prompts, after the past where there is one, into a state with room for more."""
        rows, single = _rows(self, prompt, past)
        runner = runner_of(self)
        before = [np.zeros(0, "int32")] * len(rows)
        if past is not None:
            before = past.tokens if len(past) == len(rows) else past.tokens * len(rows)
        whole = [np.concatenate(pair) for pair in zip(before, rows, strict=True)]
        needed = max(len(row) for row in whole) + more
        if past is not None and (past.room >= needed or not runner.has_room):
            state, room, last = past.state(len(rows)), past.room, past.logits
            last = np.broadcast_to(last, (len(rows), last.shape[1]))
            logits, state = runner.read(rows, state, last)
        else:
            room = room_for(needed) if runner.has_room else CHUNK
            logits, state = runner.read(whole, runner.state(len(whole), room))
        return Begun(self, whole, single, logits, state, room)


def _longest(past: Past) -> int:
    return max(len(row) for row in past.tokens)


def _rows(model: Any, prompt: Any, past: Past | None) -> tuple[list[np.ndarray], bool]:
    """The prompts, a row each, and whether there is one alone."""
    if past is None:
        return _as_rows(model, prompt, at_least=1)
    if not isinstance(past, Past) or past.model is not model:
        other = "a Past of another model" if isinstance(past, Past) else type(past).__name__
        raise ValueError(f"Received {other} as `past`, expected what this model's `read` returned.")
    if prompt is None or (_has_length(prompt) and len(prompt) == 0):
        return [np.zeros(0, "int32")] * len(past), past.single
    rows, single = _as_rows(model, prompt, at_least=0)
    if len(past) not in (1, len(rows)):
        raise ValueError(
            f"Received {len(rows)} prompts and a past of {len(past)} rows, expected as many "
            "prompts, or a past of one row."
        )
    return rows, single and past.single


def _has_length(prompt: Any) -> bool:
    return hasattr(prompt, "__len__") and getattr(prompt, "ndim", 1) > 0


def _as_rows(model: Any, prompt: Any, at_least: int) -> tuple[list[np.ndarray], bool]:
    vocab_size, pad_token = model.vocab_size, model.pad_token
    if isinstance(prompt, str | bytes):
        raise TypeError(
            f"Received a {type(prompt).__name__} as prompt, expected token ids. For a byte-level "
            "model, pass list(text.encode())."
        )
    if prompt is None:
        raise ValueError(
            "Received no prompt, expected token ids, (T,) or (B, T). What is to go on from where a "
            "`past` stands takes it by `past=...`."
        )
    if hasattr(prompt, "__array__"):
        prompt = backend.to_numpy(prompt)
    if not _has_length(prompt):
        raise TypeError(
            f"Received {prompt!r:.40} as prompt, expected token ids, (T,) or (B, T): [5] for one."
        )
    single = len(prompt) > 0 and np.ndim(prompt[0]) == 0
    rows = [np.asarray(row) for row in ([prompt] if single else prompt)]
    rows = [np.zeros(0, "int32") if row.size == 0 and row.ndim == 1 else row for row in rows]
    if not rows:
        raise ValueError("Received a batch of no prompts, expected at least one row.")
    if any(row.ndim != 1 for row in rows):
        shapes = sorted({(len(rows), *row.shape) for row in rows})
        raise ValueError(f"Received a prompt of shape {shapes[0]}, expected (T,) or (B, T).")
    if any(row.size < at_least for row in rows):
        raise ValueError(
            "Received an empty prompt, expected at least one token a row, as (T,) or (B, T)."
        )
    for row in rows:
        if row.dtype.kind not in "iu":
            raise TypeError(f"Received a prompt of dtype {row.dtype}, expected integer tokens.")
        if row.size and (row.min() < 0 or row.max() >= vocab_size):
            raise ValueError(
                f"Received a prompt with tokens from {row.min()} to {row.max()}, expected 0 to "
                f"{vocab_size - 1}."
            )
        if pad_token is not None and (row == pad_token).any():
            raise ValueError(
                f"Received a prompt with the padding token {pad_token}, expected none: prompts of "
                "different length are given as a list of lists."
            )
    return [row.astype("int32") for row in rows], single
