"""A model of the next token, run through its state: compiled once for a few fixed shapes."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from ember_keras import backend
from ember_keras.layers.base import State
from ember_keras.ops.kernels.loops import scan, turns_a_call

CHUNK = 64
"""Positions of a prompt that run at once; a shorter rest is padded, so that its length is no
shape of its own."""

SHORT_CHUNK = 16
"""Positions at once of a whole prompt that has no more."""

LONG_CHUNK = 512
"""Positions at once where every row still has as many."""


def room_for(positions: int) -> int:
    """The room of a state for so many positions: of few sizes, so that few are compiled."""
    room = CHUNK
    while room < positions:
        room *= 2
    return room * 3 // 4 if room > CHUNK and room * 3 // 4 >= positions else room


class Runner:
    """Runs a causal model on chunks of prompts and on single tokens.

    Each method gives up the state that it is given: its memory may hold the next one.

    Args:
        model: CausalLM, built.
    """

    def __init__(self, model: Any):
        self.model = model
        self._run = backend.compile(self._chunk, donate=(5,))
        self._follow = backend.compile(self._turns, donate=(3,))
        self._by_rows: dict[int, list[bool]] = {}
        self._selections: dict[int, Any] = {}

    def weights(self) -> tuple[list[Any], list[Any]]:
        """The values of the model's variables, as they are now."""
        return (
            [variable.value for variable in self.model.trainable_variables],
            [variable.value for variable in self.model.non_trainable_variables],
        )

    def state(self, rows: int, room: int) -> State:
        """A fresh state that shares no memory with a weight."""
        return copied(self.model.initial_state(rows, room if self.has_room else CHUNK))

    @functools.cached_property
    def has_room(self) -> bool:
        """Whether a state has room for a number of positions, and no more."""
        return self._shapes(1, CHUNK) != self._shapes(1, 2 * CHUNK)

    def read(
        self, rows: list[np.ndarray], state: State, last: np.ndarray | None = None
    ) -> tuple[np.ndarray, State]:
        """Runs prompts `(T,)`, and returns the logits after each row's last token.

        Args:
            rows: list of B int32 arrays.
            state: nest of tensors.
            last: float array `(B, V)` or None. The logits before, of rows that are empty.
        """
        lengths = np.array([len(row) for row in rows])
        weights, start = self.weights(), 0
        least = SHORT_CHUNK if lengths.max() <= SHORT_CHUNK else CHUNK
        while start < lengths.max():
            whole = lengths.min() - start >= LONG_CHUNK
            size = LONG_CHUNK if whole else least
            tokens = np.zeros((len(rows), size), dtype="int32")
            for i, row in enumerate(rows):
                part = row[start : start + size]
                tokens[i, : len(part)] = part
            at = lengths - 1 - start
            mask = None if whole else np.arange(size)[None, :] <= at[:, None]
            inside = (at >= 0) & (at < size)
            logits, state = self._call(weights, tokens, mask, np.clip(at, 0, size - 1), state)
            if inside.any() or last is None:
                chosen = backend.to_numpy(logits).astype("float32", copy=False)
                last = chosen if last is None else np.where(inside[:, None], chosen, last)
            start += size
        if last is None:
            raise ValueError("Received an empty prompt, expected at least one token a row.")
        return last, state

    def step(
        self, weights: Any, tokens: np.ndarray, state: State, running: np.ndarray | None = None
    ) -> tuple[np.ndarray, State]:
        """Runs one token `(B,)` a row, and returns the logits `(B, V)` after it.

        Args:
            weights: what `weights` returned.
            tokens: int32 array `(B,)`.
            state: nest of tensors.
            running: bool array `(B,)` or None. Rows that read their token; the others stay.
        """
        mask = None if running is None else running[:, None]
        logits, state = self._call(weights, tokens[:, None], mask, None, state)
        return backend.to_numpy(logits).astype("float32", copy=False), state

    def turns(self, weights: Any, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Runs one token `(B,)` a row, then the likeliest after it, several times in one call.

        Returns:
            int32 array `(B, turns)`: the tokens that followed, -1 where logits held NaN; and the
            state, which has read all but the last.
        """
        with backend.no_gradients():
            found, state = self._follow(*weights, ops.convert_to_tensor(tokens), state)
        return backend.to_numpy(found).T, state

    def select(self, state: State, rows: np.ndarray, room: int) -> State:
        """A state of the rows of these numbers, in new memory; the one given stays.

        Args:
            state: nest of tensors.
            rows: int array `(R,)`.
            room: int. What the state was made with.
        """
        chosen = self._selections.get(room)
        if chosen is None:
            by_rows = self.by_rows(room)

            def selected(state: State, rows: Any) -> State:
                leaves = [
                    ops.take(leaf, rows, axis=0) if has_rows else leaf
                    for leaf, has_rows in zip(tree.flatten(state), by_rows, strict=True)
                ]
                return tree.pack_sequence_as(state, leaves)

            chosen = self._selections[room] = backend.compile(selected)
        with backend.no_gradients():
            return copied(chosen(state, ops.convert_to_tensor(np.asarray(rows, "int32"))))

    def by_rows(self, room: int) -> list[bool]:
        """Of each tensor of a state, whether its first axis is the rows."""
        if room not in self._by_rows:
            one, other = (self._shapes(rows, room) for rows in (1, 2))
            self._by_rows[room] = [a != b for a, b in zip(one, other, strict=True)]
        return self._by_rows[room]

    def least_bytes(self, rows: int, room: int) -> int:
        """About how many bytes a state has, out of what two small ones have."""
        small, large = (self._bytes(size) for size in (CHUNK, 2 * CHUNK))
        return rows * (small + (large - small) * max(room - CHUNK, 0) // CHUNK)

    def _bytes(self, room: int) -> int:
        leaves = zip(
            tree.flatten(self.model.initial_state(1, room)), self.by_rows(room), strict=True
        )
        return sum(backend.to_numpy(leaf).nbytes for leaf, has_rows in leaves if has_rows)

    def _shapes(self, rows: int, room: int) -> list[tuple[int, ...]]:
        return [tuple(leaf.shape) for leaf in tree.flatten(self.model.initial_state(rows, room))]

    def _call(
        self,
        weights: Any,
        tokens: np.ndarray,
        mask: np.ndarray | None,
        at: np.ndarray | None,
        state: State,
    ) -> tuple[Any, State]:
        given = [None if x is None else ops.convert_to_tensor(x) for x in (tokens, mask, at)]
        with backend.no_gradients():
            return self._run(*weights, *given, state)

    def _chunk(
        self, trainable: Any, other: Any, tokens: Any, mask: Any, at: Any, state: State
    ) -> tuple[Any, State]:
        """Logits after the position `at` `(B,)`, and the state after all."""
        with self._with(trainable, other):
            hidden, state = self.model._hidden(tokens, state=state, mask=mask, return_state=True)
            if at is not None:
                hidden = ops.take_along_axis(hidden, at[:, None, None], axis=1)
            return self._allowed(hidden), state

    def _turns(self, trainable: Any, other: Any, token: Any, state: State) -> tuple[Any, State]:
        def turn(carry: Any, _: Any) -> Any:
            token, state = carry
            options = {"state": state, "return_state": True}
            hidden, state = self.model._hidden(ops.expand_dims(token, 1), **options)
            logits = self._allowed(hidden)
            broken = ops.any(ops.isnan(logits), axis=-1)
            token = ops.cast(ops.argmax(logits, axis=-1), "int32")
            return (ops.where(broken, 0, token), state), ops.where(broken, -1, token)

        with self._with(trainable, other):
            (_, state), found = scan(turn, (token, state), ops.zeros((turns_a_call(),), "int32"))
        return found, state

    def _allowed(self, hidden: Any) -> Any:
        """Logits `(B, V)` of one position `(B, 1, D)`; padding is no token to write."""
        logits = self.model._logits(hidden)[:, 0]
        pad_token = self.model.pad_token
        if pad_token is None:
            return logits
        is_pad = ops.arange(self.model.vocab_size) == pad_token
        return ops.where(is_pad, ops.cast(-np.inf, logits.dtype), logits)

    def _with(self, trainable: Any, other: Any) -> keras.StatelessScope:
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        return keras.StatelessScope(zip(variables, [*trainable, *other], strict=True))


def runner_of(model: Any) -> Runner:
    """The model's own `Runner`, made when it is first needed."""
    runner = model.__dict__.get("_runner")
    if runner is None:
        if not model.built:
            model.build((None, None))
        runner = Runner(model)
        # Not through Keras's attribute tracking: it is no part of the model.
        object.__setattr__(model, "_runner", runner)
    return runner


def copied(state: State) -> State:
    """The state in new memory, which a call may take."""
    return tree.map_structure(ops.copy, state)
