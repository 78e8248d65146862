"""The base of layers that work on each position alone."""

from __future__ import annotations

from typing import Any

from ember_keras.layers.base import EmberLayer


class ChannelMixer(EmberLayer):
    """A layer that works on each position alone: `(..., D) -> (..., D)`. It has no state."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def _width(self, shape: Any) -> int:
        if not isinstance(shape, tuple | list) or len(shape) < 2 or shape[-1] is None:
            raise ValueError(
                f"`{type(self).__name__}` received an input of shape {shape}, expected (..., D) "
                "with a known D."
            )
        return int(shape[-1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
