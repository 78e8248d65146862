"""Generation token by token, through the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops, tree

from ember_keras import backend
from ember_keras.layers.base import Mixin, State
from ember_keras.models.sampling import check_sampling, sample

_CHUNK = 64
"""Prompts run in chunks of this many positions, and states have room for a multiple of it, so that
few shapes are compiled."""


class Generation(Mixin):
    """Adds `generate` to a model of the next token."""

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
    ) -> Any:
        """Continues a prompt: it is read once, and every new token is one `step`.

        Args:
            prompt: list of int, int array `(T,)`, or a batch of them: `(B, T)`, or a list of B
                lists that may differ in length. At least one token each.
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

        Returns:
            int32 array of the prompt and what follows, or, for a batch, a list of B such arrays.
        """
        check_sampling(temperature, top_k, top_p)
        if max_new_tokens < 0:
            raise ValueError(f"Received max_new_tokens={max_new_tokens}, expected 0 or more.")
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise ValueError(f"Received seed={seed!r}, expected an integer of 0 or more, or None.")
        if stop_token is not None and not 0 <= stop_token < self.vocab_size:
            raise ValueError(
                f"Received stop_token={stop_token}, expected 0 to {self.vocab_size - 1}, or None."
            )
        rows, single = _as_rows(prompt, self.vocab_size)
        rng = np.random.default_rng(seed)
        room = max(len(row) for row in rows) + max_new_tokens
        if not self.built:
            self.build((None, None))
        state = self.initial_state(len(rows), -(-room // _CHUNK) * _CHUNK)
        # Each call gives up the state before it. This first one might hold a weight.
        state = tree.map_structure(ops.copy, state)
        run = self._compiled_run()
        logits, state = _prefill(run, rows, state)
        new: list[np.ndarray] = []
        running = np.ones(len(rows), dtype=bool)
        while len(new) < max_new_tokens and running.any():
            token = sample(logits, rng, temperature, top_k, top_p)
            new.append(np.where(running, token, -1).astype("int32"))
            if stop_token is not None:
                running &= token != stop_token
            if callback is not None:
                callback(new[-1])
            if len(new) < max_new_tokens and running.any():
                logits, state = run(token[:, None], np.ones((len(rows), 1), dtype=bool), state)
                logits = logits[:, 0]
        added = np.stack(new, axis=1) if new else np.zeros((len(rows), 0), dtype="int32")
        whole = [
            np.concatenate([row, more[more >= 0]]) for row, more in zip(rows, added, strict=True)
        ]
        return whole[0] if single else whole

    def _compiled_run(self) -> Callable[..., tuple[np.ndarray, State]]:
        """Tokens, mask and state to logits (numpy) and state, compiled once a shape."""
        compiled = self.__dict__.get("_generation_run")
        if compiled is None:

            def run(trainable: Any, other: Any, tokens: Any, mask: Any, state: State) -> Any:
                outputs, _ = self.stateless_call(
                    trainable, other, tokens, mask=mask, state=state, return_state=True
                )
                return outputs

            compiled = backend.compile(run, donate=(4,))
            # Not through Keras's attribute tracking: it is no part of the model.
            object.__setattr__(self, "_generation_run", compiled)
        trainable = [variable.value for variable in self.trainable_variables]
        other = [variable.value for variable in self.non_trainable_variables]

        def call(tokens: np.ndarray, mask: np.ndarray, state: State) -> tuple[np.ndarray, State]:
            tokens, mask = ops.convert_to_tensor(tokens), ops.convert_to_tensor(mask)
            logits, state = compiled(trainable, other, tokens, mask, state)
            return backend.to_numpy(logits).astype("float32"), state

        return call


def _as_rows(prompt: Any, vocab_size: int) -> tuple[list[np.ndarray], bool]:
    if isinstance(prompt, str | bytes):
        raise TypeError(
            f"Received a {type(prompt).__name__} as prompt, expected token ids. For a byte-level "
            "model, pass list(text.encode())."
        )
    if hasattr(prompt, "__array__"):
        prompt = backend.to_numpy(prompt)
    single = len(prompt) > 0 and np.ndim(prompt[0]) == 0
    rows = [np.asarray(row) for row in ([prompt] if single else prompt)]
    if not rows:
        raise ValueError("Received a batch of no prompts, expected at least one row.")
    if any(row.size == 0 or row.ndim != 1 for row in rows):
        raise ValueError(
            "Received an empty prompt, expected at least one token a row, as (T,) or (B, T)."
        )
    for row in rows:
        if row.dtype.kind not in "iu":
            raise TypeError(f"Received a prompt of dtype {row.dtype}, expected integer tokens.")
        if row.min() < 0 or row.max() >= vocab_size:
            raise ValueError(
                f"Received a prompt with tokens from {row.min()} to {row.max()}, expected 0 to "
                f"{vocab_size - 1}."
            )
    return [row.astype("int32") for row in rows], single


def _prefill(run: Any, rows: list[np.ndarray], state: State) -> tuple[np.ndarray, State]:
    """Runs the prompts, padded on the right, and returns the logits after each row's last token."""
    lengths = np.array([len(row) for row in rows])
    width = -(-lengths.max() // _CHUNK) * _CHUNK
    tokens = np.zeros((len(rows), width), dtype="int32")
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    mask = np.arange(width)[None, :] < lengths[:, None]
    last: np.ndarray | None = None
    for start in range(0, width, _CHUNK):
        part = slice(start, start + _CHUNK)
        logits, state = run(tokens[:, part], mask[:, part], state)
        at = lengths - 1 - start
        inside = (at >= 0) & (at < _CHUNK)
        chosen = logits[np.arange(len(rows)), np.clip(at, 0, _CHUNK - 1)]
        last = chosen if last is None else np.where(inside[:, None], chosen, last)
    if last is None:
        raise ValueError("Received an empty prompt, expected at least one token a row.")
    return last, state
