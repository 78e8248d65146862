"""What every filter of a long convolution is."""

from __future__ import annotations

from typing import Any

import keras


class Filter(keras.layers.Layer):
    """A causal filter for each of `channels` channels; it is asked for as many taps as are needed.

    It is built with `build((channels,))` and read with `taps(length)`. Tap s weighs what came s
    positions ago, and does not depend on `length`: a longer filter begins with the shorter one.
    """

    @property
    def size(self) -> int | None:
        """The number of taps of a finite filter; None for one that never ends."""
        return None

    def taps(self, length: int) -> Any:
        """The first taps, `(min(length, size), channels)`, in float32 or wider."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no taps.")

    def call(self, length: int) -> Any:
        return self.taps(length)
