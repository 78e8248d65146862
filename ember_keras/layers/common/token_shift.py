"""The position before each: what RWKV mixes with the present one."""

from __future__ import annotations

from typing import Any

from keras import ops

from ember_keras.backend import pad
from ember_keras.layers.base import EmberLayer, State, require_rows
from ember_keras.ops.engines.timeline import running_maximum


class TokenShift(EmberLayer):
    """The previous real position of each position: `y_t = x_{t-1}`, zero where a sequence starts.

    It has no weights: how much of it is mixed in, and whether the input decides that, is up to the
    layer around it (Peng et al. 2024, Eagle and Finch, arXiv 2404.05892, section 4).

    Args:
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, D)`.
        state: tensor `(B, D)`, the last real position before `x`, or None for a fresh start.
        mask: bool tensor `(B, T)`, True at real positions.
        segment_ids: int tensor `(B, T)`. The state belongs to the first segment.
        return_state: bool. Gives `(y, state)`.

    Output shape: that of `x`.

    Example:

    ```python
    import numpy as np
    from ember_keras.layers.common import TokenShift

    y, state = TokenShift()(np.ones((2, 5, 8), "float32"), return_state=True)
    print(y.shape, state.shape)  # (2, 5, 8) (2, 8)
    ```
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.width = input_shape[-1]
        super().build(input_shape)

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        return_state: bool = False,
    ) -> Any:
        require_rows(self, x, mask=mask, segment_ids=segment_ids)
        if state is None:
            state = ops.zeros_like(x[:, 0])
        # Slot 0 is the past, and slot t + 1 is position t.
        slots = ops.concatenate([ops.expand_dims(ops.cast(state, x.dtype), 1), x], axis=1)
        if mask is None:
            y, last = slots[:, :-1], slots[:, -1]
            if segment_ids is not None:
                starts = segment_ids[:, 1:] != segment_ids[:, :-1]
                starts = pad(starts, ((0, 0), (1, 0)), constant_values=False)
                y = ops.where(starts[:, :, None], ops.zeros_like(y), y)
            return (y, last) if return_state else y
        slot = ops.arange(1, x.shape[1] + 1, dtype="int32")
        real = ops.where(ops.cast(mask, "bool"), slot[None, :], 0)
        upto = ops.cast(running_maximum(real), "int32")
        before = pad(upto[:, :-1], ((0, 0), (1, 0)))
        y = ops.take_along_axis(slots, before[:, :, None], axis=1)
        if segment_ids is not None:
            of_previous = ops.take_along_axis(segment_ids, ops.maximum(before - 1, 0), axis=1)
            starts = ops.logical_and(before > 0, of_previous != segment_ids)
            y = ops.where(starts[:, :, None], ops.zeros_like(y), y)
        last = ops.take_along_axis(slots, upto[:, -1:, None], axis=1)[:, 0]
        return (y, last) if return_state else y

    def initial_state(self, batch_size: int) -> State:
        return ops.zeros((batch_size, self.width), dtype=self.compute_dtype)
