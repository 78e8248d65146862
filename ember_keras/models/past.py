"""What a model has read: kept, used again, saved and loaded."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from keras import ops, tree

from ember_keras import backend
from ember_keras.layers.base import State
from ember_keras.models import past_files
from ember_keras.models.saving import LoadError
from ember_keras.models.stepping import copied, room_for, runner_of


class Past:
    """What a model has read: its state after some tokens, and what it expects next.

    `model.read` makes one. It can be continued any number of times, each from where it stands:
    a prompt that many continuations share is read once. `save` writes it to a file.

    Args:
        model: CausalLM. The model that has read.
        tokens: list of B int arrays. What it has read, a row each.
        logits: float array `(B, vocab_size)`. What it expects next.
        state: nest of tensors, of B rows.
        room: int. The `max_length` that the state was made with.
        single: bool. Whether it is of one prompt, and no batch.

    Example:

    ```python
    import ember_keras as ek

    model = ek.models.CausalLM(vocab_size=50, width=16, blocks=["mamba", "gated_mlp"])
    past = model.read([1, 2, 3])
    one = model.generate([7], past=past, max_new_tokens=4, seed=0)
    other = model.generate([8, 9], past=past, max_new_tokens=4, seed=0)
    past.save("read.safetensors")
    again = ek.models.Past.load("read.safetensors", model)
    print(one.shape, other.shape, again.tokens[0])  # (8,) (9,) [1 2 3]
    ```
    """

    def __init__(
        self,
        model: Any,
        tokens: list[np.ndarray],
        logits: np.ndarray,
        state: State,
        room: int,
        single: bool = False,
    ):
        self.model = model
        self.tokens = tokens
        self.logits = logits
        self.room = room
        self.single = single
        self._state = state

    def __len__(self) -> int:
        return len(self.tokens)

    def state(self, rows: int) -> State:
        """Its state in memory of its own, which a call may take; of one row, as many as asked."""
        if rows == len(self):
            return copied(self._state)
        return runner_of(self.model).select(self._state, np.zeros(rows, "int32"), self.room)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Saves it, as a safetensors file: numbers and their names alone.

        The file is written under another name and renamed when complete.

        Args:
            path: str or path-like. The file, whose name ends in `.safetensors`.
            overwrite: bool. Whether a file that is there already may be replaced.
        """
        lengths = np.array([len(row) for row in self.tokens], "int32")
        tokens = np.zeros((len(self), lengths.max()), "int32")
        for row, target in zip(self.tokens, tokens, strict=True):
            target[: len(row)] = row
        arrays = {"tokens": tokens, "lengths": lengths, "logits": self.logits}
        by_rows = runner_of(self.model).by_rows(self.room)
        for name, leaf, has_rows in zip(*_named(self._state), by_rows, strict=True):
            if has_rows:
                arrays[name] = backend.to_numpy(leaf)
        facts = {
            **past_files.facts_of(self.model),
            "room": str(self.room),
            "single": str(int(self.single)),
        }
        past_files.write(path, arrays, facts, overwrite)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Any,
        *,
        max_bytes: int = past_files.MAX_BYTES,
    ) -> Past:
        """Loads what `save` wrote, which need not be trusted, for the model that had read it.

        Every array must have the shape and type that the model's own state has, and the model must
        be of the configuration and the weights that the past was saved with. It may have been
        saved under another backend.

        Args:
            path: str or path-like. The file.
            model: CausalLM, built.
            max_bytes: int. The most bytes that the file may have.

        Returns:
            A `Past`; `LoadError` (a `ValueError`) where the file is damaged or of another model.
        """
        runner = runner_of(model)
        with past_files.Reader(path, max_bytes) as file:
            file.require_model(model)
            rows, room, single = file.rows(), file.number("room"), file.number("single")
            file.require_bytes(runner.least_bytes(rows, room) // 2)
            if room != room_for(room) or single not in (0, 1) or (single and rows != 1):
                raise LoadError(path, f"room {room}, single {single} and {rows} rows are no past.")
            fresh = runner.state(rows, room)
            by_rows = runner.by_rows(room)
            wanted = {
                name: backend.to_numpy(leaf)
                for name, leaf, has_rows in zip(*_named(fresh), by_rows, strict=True)
                if has_rows
            }
            arrays = file.arrays(wanted, rows, model.vocab_size)
        tokens = past_files.token_rows(arrays, model, path)
        read = [
            ops.convert_to_tensor(arrays[name]) if has_rows else leaf
            for name, leaf, has_rows in zip(*_named(fresh), by_rows, strict=True)
        ]
        return cls(
            model,
            tokens,
            arrays["logits"],
            tree.pack_sequence_as(fresh, read),
            room,
            bool(single),
        )


def _named(state: State) -> tuple[list[str], list[Any]]:
    """The names of the tensors of a state, by where they stand in it, and the tensors."""
    found = tree.flatten_with_path(state)
    names = ["state." + ".".join(str(part) for part in path) for path, _ in found]
    return names, [leaf for _, leaf in found]
