"""What a pipeline raises when a run fails through no mistake in its configuration."""

from __future__ import annotations

import re


class RunError(RuntimeError):
    """A run that could not be finished; the message says why, and what was kept."""


class InputError(ValueError):
    """A path or a file that cannot be used: missing, of the wrong kind, or already taken."""


def message_of(error: BaseException) -> str:
    """An error's own words, without what Keras wraps around those of a layer."""
    own = error.strerror if isinstance(error, OSError) and not error.filename else None
    text = own or str(error) or type(error).__name__
    inner = re.search(r"\x1b\[1m(.*)\x1b\[0m", text, re.DOTALL)
    text = inner.group(1) if inner else text
    return text.partition("\n\nArguments received by")[0].strip()
