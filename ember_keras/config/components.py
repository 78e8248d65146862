"""How a class says, in its own signature, that an argument is another component."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Component:
    """Marks an argument that takes a name, a configuration, or a built component.

    Args:
        *kinds: str. The registry kinds that it may come from.

    Example:

    ```python
    from typing import Annotated, Any

    from ember_keras.config import Component

    def build(mixer: Annotated[Any, Component("sequence_mixers", "channel_mixers")] = "attention"):
        ...
    ```
    """

    def __init__(self, *kinds: str):
        self.kinds = kinds


def nearest(name: object, valid: Iterable[str]) -> str:
    """The end of an error: ` Did you mean 'x'?`, or nothing where no name is near."""
    word, words = str(name)[:100], list(valid)
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.8)
    found = found or [known for known in words if word in known.split("_")][:2]
    found = found or difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""
