"""Files of what a model has read: the safetensors format, written and read without trust.

Eight bytes hold the length of a JSON object, which names each array's type, shape and place; the
arrays follow. Nothing in such a file is run, and no array is made that the model does not have.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np

from ember_keras import backend
from ember_keras.layers.moe.mixture import MixtureOfExperts
from ember_keras.models.saving import LoadError, files
from ember_keras.models.saving.plain_json import read_json
from ember_keras.models.saving.writing import write_whole

SUFFIX = ".safetensors"
MAX_BYTES = 16 << 30
_MAX_HEADER = 16 << 20
_FORMAT = "ember_keras past 1"
_TYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "BOOL": np.dtype("bool"),
    "C64": np.dtype("complex64"),
}
_POOLED = ("waiting", "count", "output", "number")
"""What stands in the state of a `Pooled`, `mixer` aside."""
_OTHER = {
    "format": "another format",
    "configuration": "another configuration",
    "weights": "other weights",
}
"""What a past is of where one of its facts is not the model's."""
_OTHERWISE = "It was damaged, or is no past of this model: read the prompt again and save it."


def facts_of(model: Any) -> dict[str, str]:
    """What tells the model that read from every other one: its configuration and its weights."""
    config = {key: value for key, value in model.get_config().items() if key != "name"}
    text = json.dumps(config, sort_keys=True, default=str)
    digest = hashlib.sha256()
    mixtures = [each for each in model._flatten_layers() if isinstance(each, MixtureOfExperts)]
    reports = {id(mixture.use) for mixture in mixtures}  # Of the last batch: no output reads them.
    for variable in model.weights:
        if id(variable) in reports:
            continue
        array = np.ascontiguousarray(backend.to_numpy(variable))
        digest.update(f"{tuple(variable.shape)} {variable.dtype}".encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return {
        "format": _FORMAT,
        "configuration": hashlib.sha256(text.encode()).hexdigest(),
        "weights": digest.hexdigest(),
    }


def write(
    path: str | os.PathLike[str],
    arrays: dict[str, np.ndarray],
    facts: dict[str, str],
    overwrite: bool,
) -> None:
    """Writes arrays and facts, whole or not at all."""
    names = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, Any] = {}
    at, digest = 0, hashlib.sha256()
    for name, array in arrays.items():
        end = at + array.nbytes
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, end],
        }
        digest.update(np.ascontiguousarray(array).tobytes())
        at = end
    header["__metadata__"] = {**facts, "sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def fill(new: Path) -> None:
        with open(new, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).tobytes())

    write_whole(path, SUFFIX, overwrite, fill)


class Reader:
    """An open file, whose header is read and whose size fits what the header says.

    Args:
        path: str or path-like.
        max_bytes: int. The most bytes that it may have.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int):
        self.path = path
        self._file = files.open_file(path, SUFFIX, b"", max_bytes)
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _read_header(self) -> None:
        self._size = os.fstat(self._file.fileno()).st_size
        length, most = (
            int.from_bytes(self._file.read(8), "little"),
            min(_MAX_HEADER, self._size - 8),
        )
        if not 0 < length <= most:  # The number itself may be the first bytes of any other file.
            raise LoadError(
                self.path,
                f"it does not begin with the length of a header, 1 to {max(most, 1):,} bytes.",
                _OTHERWISE,
            )
        header = read_json(
            self._file.read(length), self.path, "header", _OTHERWISE, "past of a model"
        )
        self._start = 8 + length
        facts = header.pop("__metadata__", None) if isinstance(header, dict) else None
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise LoadError(self.path, f"it does not say that it is '{_FORMAT}'.", _OTHERWISE)
        self._facts: dict[str, Any] = facts
        self._places: dict[str, Any] = header

    def require_model(self, model: Any) -> None:
        """Refuses a past of a model of another configuration or other weights."""
        for name, value in facts_of(model).items():
            if self._facts.get(name) != value:
                raise LoadError(
                    self.path,
                    f"it was saved by a model of {_OTHER[name]}.",
                    "Load it for the model that read it, or read the prompt again.",
                )

    def number(self, name: str) -> int:
        """A whole number among the facts."""
        text = self._facts.get(name)
        if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 10:
            raise LoadError(self.path, f"its {name} is {text!r:.40}, no number.", _OTHERWISE)
        return int(text)

    def rows(self) -> int:
        """B, of the array of lengths."""
        shape = _shape(self._places.get("lengths"))
        if len(shape) != 1 or not 1 <= shape[0] <= self._size:
            raise LoadError(self.path, f"its lengths have the shape {shape!r:.40}.", _OTHERWISE)
        return shape[0]

    def require_bytes(self, least: int) -> None:
        """Refuses a file that claims a state far larger than itself."""
        if self._size < least:
            raise LoadError(
                self.path,
                f"it has {self._size:,} bytes, expected at least {least:,} for its state.",
                _OTHERWISE,
            )

    def arrays(
        self, wanted: dict[str, np.ndarray], rows: int, vocab_size: int
    ) -> dict[str, np.ndarray]:
        """Every array of the file, where it has those that are wanted and the past's own alone."""
        shapes = {name: (array.shape, array.dtype) for name, array in wanted.items()}
        shapes["lengths"] = ((rows,), np.dtype("int32"))
        shapes["logits"] = ((rows, vocab_size), np.dtype("float32"))
        if set(self._places) != {*shapes, "tokens"}:
            other = sorted(set(self._places) ^ {*shapes, "tokens"})[0]
            raise LoadError(self.path, f"{other!r:.60} is missing, or too much.", _OTHERWISE)
        found, at, digest = {}, 0, hashlib.sha256()
        for name, place in self._places.items():
            shape, dtype = shapes.get(name) or (self._token_shape(place, rows), np.dtype("int32"))
            end = at + math.prod(shape) * dtype.itemsize
            expected = {"shape": list(shape), "data_offsets": [at, end]}
            kind = place.get("dtype") if isinstance(place, dict) else None
            given = {key: place.get(key) for key in expected} if kind is not None else None
            if given != expected or _TYPES.get(str(kind)) != dtype:
                raise LoadError(
                    self.path,
                    f"{name!r} is {place!r:.120}, expected {dtype} {list(shape)} at {at}.",
                    _OTHERWISE,
                )
            data = self._file.read(end - at)
            if len(data) != end - at:
                raise LoadError(self.path, "it ends too early.", _OTHERWISE)
            digest.update(data)
            found[name] = np.frombuffer(data, dtype).reshape(shape)
            at = end
        if self._start + at != self._size or self._facts.get("sha256") != digest.hexdigest():
            raise LoadError(self.path, "its checksum is not that of its data.", _OTHERWISE)
        return found

    def _token_shape(self, place: Any, rows: int) -> tuple[int, ...]:
        shape = _shape(place)
        if len(shape) != 2 or shape[0] != rows or not 1 <= shape[1] <= self._size:
            raise LoadError(self.path, f"its tokens have the shape {shape!r:.40}.", _OTHERWISE)
        return shape


def _shape(place: Any) -> tuple[int, ...]:
    """The shape that the header names, or an empty one where it names none."""
    shape = place.get("shape") if isinstance(place, dict) else None
    known = isinstance(shape, list) and all(type(size) is int for size in shape)
    return tuple(shape) if known and shape is not None else ()


def _in_pooled(place: str, arrays: dict[str, np.ndarray]) -> bool:
    return all(f"{place}.{part}" in arrays for part in _POOLED)


def _expected(name: str, arrays: dict[str, np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """What a state counts after so many tokens: inside `Pooled` groups of P, and there the rest."""
    words = name.split(".")
    for i in range(1, len(words)):
        place = ".".join(words[:i])
        if _in_pooled(place, arrays):
            size = arrays[f"{place}.waiting"].shape[1] + 1
            lengths = lengths % size if words[i:] == ["count"] else lengths // size
    return lengths


def token_rows(arrays: dict[str, np.ndarray], model: Any, path: object) -> list[np.ndarray]:
    """The tokens of each row, where they are the model's, and as many as each state says."""
    lengths, tokens = arrays["lengths"], arrays["tokens"]
    if lengths.min() < 1 or lengths.max() > tokens.shape[1]:
        raise LoadError(path, f"its lengths are {lengths.min()} to {lengths.max()}.", _OTHERWISE)
    if tokens.min() < 0 or tokens.max() >= model.vocab_size:
        raise LoadError(path, f"its tokens are {tokens.min()} to {tokens.max()}.", _OTHERWISE)
    for name, array in arrays.items():
        place, _, last = name.rpartition(".")
        if not (last == "length" or last == "count" and _in_pooled(place, arrays)):
            continue
        if not np.array_equal(array, _expected(name, arrays, lengths)):
            raise LoadError(path, f"{name!r} is not the number of its tokens.", _OTHERWISE)
    return [row[:length].copy() for row, length in zip(tokens, lengths, strict=True)]
