"""Checks that tasks share: received, expected, how to mend."""

from __future__ import annotations

import numbers
from typing import Any


def at_least(low: int, **named: Any) -> int:
    """The one keyword's value, an integer of at least `low`."""
    ((name, value),) = named.items()
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"Received {name}={value!r} ({type(value).__name__}); expected an integer of at least "
            f"{low}."
        )
    if value < low:
        raise ValueError(f"Received {name}={value}; expected at least {low}. Raise `{name}`.")
    return int(value)


def fraction(**named: Any) -> float:
    """The one keyword's value, a number of at least 0 and below 1."""
    ((name, value),) = named.items()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Received {name}={value!r} ({type(value).__name__}); expected a number from 0 to "
            "below 1."
        )
    if not 0 <= float(value) < 1:
        raise ValueError(
            f"Received {name}={value}; expected a fraction from 0 to below 1, e.g. {name}=0.1."
        )
    return float(value)
