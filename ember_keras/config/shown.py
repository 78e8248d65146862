"""What came out of a file, as an error may say it: short, and safe to print on any terminal.

Whoever wrote the file chose its keys and values: ten megabytes of them, the codes that clear a
terminal, or half a character, which no terminal prints.
"""

from __future__ import annotations

import re
from typing import Any

MOST = 80
MOST_OF_A_MESSAGE = 1200


def shown(value: Any, most: int = MOST) -> str:
    """A value as Python writes it, in ASCII, its middle left out where it is long.

    Args:
        value: what stands in the file.
        most: int, the most characters.
    """
    try:
        text = ascii(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits.
        text = f"{type(value).__name__} of very many digits"
    return _shortened(text, most)


def escaped(text: str, most: int = MOST) -> str:
    """Text without quotes around it: what does not print is written as Python escapes it.

    Args:
        text: str, a key or a path of keys.
        most: int, the most characters.
    """
    parts = (
        part if part.isprintable() else part.encode("unicode_escape").decode()
        for part in _shortened(text, most)
    )
    return _shortened("".join(parts), most)


def message(text: str) -> str:
    """The text of an error in one line that can be printed, what other packages said among it."""
    return escaped(re.sub(r"\s*\n\s*", " ", text), MOST_OF_A_MESSAGE)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = (most - 3) // 3
    return f"{text[: most - 3 - end]}...{text[-end:]}"
