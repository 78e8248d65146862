"""Any causal sequence mixer over a shorter, pooled sequence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.engines import cache
from ember_keras.ops.engines.groups import groups


@registry.sequence_mixers.register("pooled")
class Pooled(SequenceMixer):
    """A causal mixer that reads each P positions as one, and answers at all of them.

    P neighbours are pooled into one position, the mixer runs over T / P of these, and an output
    stands at each position until the next group of P is full (the down- and up-pooling of SaShiMi,
    Goel et al. 2022, arXiv 2202.09729, section 4.2, without its two maps of the width). The work of
    the mixer, and what it keeps of the past, is 1 / P of what it would be: for slow context in a
    stack whose other blocks see every position.

    Groups are counted from the first real position of each packed sequence, so that padding does
    not move them, and an output reads full groups alone: the first P - 1 of a sequence are zero.

    Args:
        mixer: a name, configuration or layer of `registry.sequence_mixers`. It must be causal.
        pool_size: int >= 2, P.
        pooling: "mean", "max" or "last", of the P positions.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments: those of every sequence mixer, `x` `(B, T, D)` first.

    Output shape: `(B, T, D)`.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    mixer = ek.layers.Pooled("hyena", pool_size=8)
    print(mixer(np.ones((2, 100, 16), "float32")).shape)  # (2, 100, 16)
    ```
    """

    def __init__(
        self,
        mixer: Annotated[Any, Component("sequence_mixers")] = "attention",
        pool_size: int = 2,
        pooling: Literal["mean", "max", "last"] = "mean",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if pool_size < 2:
            raise ValueError(
                f"`Pooled` received pool_size={pool_size}, expected at least 2. Use the mixer "
                "without the wrapper to read every position."
            )
        self.mixer = registry.build_part(mixer, ("sequence_mixers",), self.dtype_policy, "mixer")
        if not self.mixer.is_causal:
            raise ValueError(
                f"`Pooled` received a `{type(self.mixer).__name__}` that is bidirectional, "
                "expected a causal mixer. Build it causal, and wrap `Bidirectional` around this "
                "layer to see both sides."
            )
        self.pool_size = pool_size
        self.pooling = pooling

    def build(self, input_shape: Any) -> None:
        self.width = require_sequence(self, input_shape)
        self.mixer.build((input_shape[0], None, self.width))
        super().build(input_shape)

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        fresh = state is None and not return_state and mask is None and segment_ids is None
        if fresh and x.shape[1] >= self.pool_size:
            return self._whole(x, training), None
        before = state or self._start(ops.shape(x)[0])
        found = groups(x, self.pool_size, before["count"], mask, segment_ids)
        slots = ops.concatenate([ops.cast(before["waiting"], x.dtype), x], axis=1)
        members = ops.reshape(found.members, (-1, found.members.shape[1] * self.pool_size))
        pooled = self._pool(cache.gather(slots, members), found.members.shape[1])
        inner = None if state is None else state["mixer"]
        ids = None
        if state is not None or segment_ids is not None:  # Numbers that never come back.
            ids = before["number"][:, None] + found.run
        y = self.mixer(
            pooled,
            state=inner,
            mask=found.there,
            segment_ids=ids,
            training=training,
            return_state=return_state,
        )
        y, inner = y if return_state else (y, None)
        outputs = ops.concatenate([ops.cast(before["output"], y.dtype)[:, None], y], axis=1)
        of_run = ops.concatenate([ops.zeros_like(found.run[:, :1]), found.run], axis=1)

        def newest(number: Any, run: Any) -> Any:
            own = cache.gather(of_run, number) == run
            return cache.keep(cache.gather(outputs, number), own)

        y = newest(found.newest, found.newest_run)
        if not return_state:
            return y, None
        waiting = cache.gather(slots, found.waiting)
        waits = ops.arange(self.pool_size - 1, dtype="int32")[None, :]
        waits = waits >= self.pool_size - 1 - found.count[:, None]
        output = newest(found.full[:, None], found.last_run[:, None])[:, 0]
        return y, {
            "waiting": ops.cast(cache.keep(waiting, waits), before["waiting"].dtype),
            "count": found.count,
            "output": ops.cast(output, before["output"].dtype),
            "number": before["number"] + found.last_run,
            "mixer": inner,
        }

    def _whole(self, x: Any, training: bool | None) -> Any:
        """What `mix` gives of one sequence a row, all there and from its start."""
        time, size = int(x.shape[1]), self.pool_size
        count = time // size
        y = self.mixer(self._pool(x[:, : count * size], count), training=training)
        y = ops.reshape(ops.stack([y] * size, axis=2), (-1, count * size, self.width))
        return ops.concatenate([ops.zeros_like(x[:, : size - 1]), y], axis=1)[:, :time]

    def _pool(self, x: Any, count: int) -> Any:
        """`(B, count P, D)` to `(B, count, D)`."""
        x = ops.reshape(x, (-1, count, self.pool_size, self.width))
        if self.pooling == "last":
            return x[:, :, -1]
        if self.pooling == "max":
            return ops.max(x, axis=2)
        return ops.cast(ops.mean(wide(x), axis=2), x.dtype)

    def output_weights(self) -> list[Any]:
        return self.mixer.output_weights()

    def _start(self, batch_size: Any) -> State:
        def zeros(*shape: int, dtype: str = self.compute_dtype) -> Any:
            return ops.zeros((batch_size, *shape), dtype=dtype)

        return {
            "waiting": zeros(self.pool_size - 1, self.width),
            "count": zeros(dtype="int32"),
            "output": zeros(self.width),
            "number": zeros(dtype="int32"),
        }

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        room = None if max_length is None else -(-max_length // self.pool_size)
        inner = self.mixer.initial_state(batch_size, room)
        return {**self._start(batch_size), "mixer": inner}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mixer": registry.part_config(self.mixer, ("sequence_mixers",)),
            "pool_size": self.pool_size,
            "pooling": self.pooling,
        }
