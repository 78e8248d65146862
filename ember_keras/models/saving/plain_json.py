"""JSON text to plain data, within limits that are checked before anything is built from it."""

from __future__ import annotations

import json
from typing import Any

from ember_keras.config.shown import shown
from ember_keras.models.saving.errors import DAMAGED, LoadError

MAX_DEPTH = 200
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def read_json(
    data: bytes,
    path: object,
    member: str,
    mend: str = DAMAGED,
    writer: str = "model that Keras saves",
) -> Any:
    """Reads a part of a file, and refuses what is too deep, not JSON, or has a key twice.

    Args:
        data: bytes, the text.
        path: str or path-like, the file.
        member: str, what the text is in it.
        mend: str, what to do where it is no JSON.
        writer: str, what such files come from, of which none is so deep.
    """
    depth = _depth(data)
    if depth > MAX_DEPTH:
        raise LoadError(
            path,
            f"`{member}` nests {depth} levels, expected at most {MAX_DEPTH}.",
            f"No {writer} is that deep: do not trust this file.",
        )
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LoadError(path, f"`{member}` is not valid JSON ({error}).", mend) from None


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside strings."""
    # Escaped backslashes and quotes go first, so that every quote left opens or closes a string.
    parts = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    depth = deepest = 0
    for byte in b"".join(parts[::2]).translate(None, _NO_BRACKETS):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found
