"""Sequence mixers that take irregular time steps."""

from __future__ import annotations

from typing import Annotated, Any

from keras import ops

from ember_keras import backend, registry
from ember_keras.config import Component
from ember_keras.layers.base import State, require_rows, wide_dtype
from ember_keras.layers.common.wirings import Wiring
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.ops.tensor import call_unwrapped

AnyWiring = Annotated[Any, Component("wirings")]
"""The annotation of an argument that takes a wiring, its name or configuration, or None."""


class TimedMixer(SequenceMixer):
    """A sequence mixer in continuous time: it takes the time since the position before.

    Call arguments: those of every sequence mixer, and
        time_deltas: float tensor `(B, T)`, not negative: the time from the position before to this
            one, in any unit; 1 everywhere when None. `step` takes it as `(B,)`.
    """

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        training: bool | None = None,
        return_state: bool = False,
        time_deltas: Any = None,
    ) -> Any:
        if time_deltas is not None:
            require_rows(self, x, time_deltas=time_deltas)
            time_deltas = ops.cast(time_deltas, wide_dtype(self.compute_dtype))
            if mask is not None:
                here = ops.cast(mask, "bool")
                time_deltas = ops.where(here, time_deltas, ops.zeros_like(time_deltas))
            self._require_not_negative(time_deltas)
            time_deltas = ops.expand_dims(time_deltas, -1)
        return self._run(
            x, state, mask, segment_ids, training, return_state, time_deltas=time_deltas
        )

    def _require_not_negative(self, time_deltas: Any) -> None:
        if backend.is_tracing(time_deltas):
            return  # The values are not known yet.
        least = backend.to_numpy(time_deltas).min(initial=0.0)
        if least < 0:
            raise ValueError(
                f"`{type(self).__name__}` received time_deltas with {least:g}, expected no time "
                "before 0: the time since the position before. Give differences, in order."
            )

    def step(self, x_t: Any, state: State, time_deltas: Any = None) -> tuple[Any, State]:
        """Runs one position: `(B, D), state -> (B, D), state`, `time_deltas` after the last."""
        if time_deltas is None:
            return super().step(x_t, state)
        return call_unwrapped(self._timed_step, x_t, state, time_deltas)

    def _timed_step(self, x_t: Any, state: State, time_deltas: Any) -> tuple[Any, State]:
        deltas = ops.expand_dims(ops.convert_to_tensor(time_deltas), 1)
        y, state = self(ops.expand_dims(x_t, 1), state=state, return_state=True, time_deltas=deltas)
        return ops.squeeze(y, 1), state

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        return {"neurons": ops.zeros((batch_size, self._units), wide_dtype(self.compute_dtype))}


def build_wiring(wiring: Any) -> Any:
    """A wiring from a name, a configuration, or a wiring; None stays None."""
    if wiring is None or isinstance(wiring, Wiring):
        return wiring
    return registry.wirings.build(registry.plain(wiring))


def wiring_config(wiring: Any) -> Any:
    """What `build_wiring` builds the wiring from again."""
    return None if wiring is None else registry.part_config(wiring, ("wirings",))
