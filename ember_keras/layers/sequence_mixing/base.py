"""The state contract that every sequence mixer, block and model keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from ember_keras.layers.base import (
    EmberLayer,
    Mixin,
    State,
    StateShape,
    require_rows,
    require_sequence,
    require_size,
    require_state,
    require_width,
)
from ember_keras.ops.engines import checks
from ember_keras.ops.kernels.row_groups import by_rows
from ember_keras.ops.tensor import call_unwrapped

NO_SEGMENT = -(2**31)
"""The id that stands for no segment yet."""


@dataclasses.dataclass(frozen=True)
class _Form:
    """A nest that Keras does not track: it would wrap a dict that is an attribute of a layer."""

    nest: Any


class Stateful(Mixin):
    """The three methods of the contract: `call` with a state, `initial_state`, and `step`."""

    _form: _Form | None = None

    @property
    def is_causal(self) -> bool:
        """Whether an output depends on the past alone; what is not causal has no state."""
        return True

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        """The state before the first position.

        Args:
            batch_size: int, B.
            max_length: int or None. With a number, layers that keep their past (attention, long
                convolution) hold room for that many positions, so that shapes stay fixed and a step
                compiles once. Without one, their state grows with every position.

        Returns:
            A nest of tensors of fixed structure.
        """
        raise NotImplementedError(f"`{type(self).__name__}` defines no state.")

    def step(self, x_t: Any, state: State) -> tuple[Any, State]:
        """Runs one position: `(B, D), state -> (B, D), state`."""
        self._require_causal("step")
        return call_unwrapped(self._step, x_t, state)

    def _step(self, x_t: Any, state: State) -> tuple[Any, State]:
        y, state = self(ops.expand_dims(x_t, 1), state=state, return_state=True)
        return ops.squeeze(y, 1), state

    def compute_output_spec(self, x: Any, **kwargs: Any) -> Any:
        if kwargs.get("return_state"):
            return super().compute_output_spec(x, **kwargs)
        return self._output_spec(x)

    def _output_spec(self, x: Any) -> Any:
        """What a call without a state gives, symbolically: `(B, T, D)` of the compute dtype."""
        require_sequence(self, tuple(x.shape))
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask

    def _require_causal(self, what: str) -> None:
        if not self.is_causal:
            raise ValueError(
                f"`{type(self).__name__}` is bidirectional, so it has no `{what}`: an output "
                "depends on positions still to come. Build it causal, or call it on whole "
                "sequences."
            )

    def _require_built(self) -> None:
        if not self.built:
            raise ValueError(
                f"`{type(self).__name__}` is not built yet, so the widths of its state are "
                "unknown. Call it once, or `build` it with the shape of its input, first."
            )

    def _require_state(self, state: State, x: Any) -> None:
        if self._form is None:
            shapes = keras.tree.map_structure(
                lambda leaf: StateShape(tuple(leaf.shape[1:])), self.initial_state(1)
            )
            self._form = _Form(shapes)
        require_state(self, state, self._form.nest, x.shape[0])


class SequenceMixer(Stateful, EmberLayer):
    """A layer that moves information along time: `(B, T, D) -> (B, T, D)`.

    A subclass writes `build`, `mix` and `initial_mixer_state`, and says in `is_causal` whether it
    is bidirectional. This class does what is the same for all: shapes, restarts of packed
    sequences, masks, and `step`.

    Call arguments:
        x: float tensor `(B, T, D)`, T >= 1.
        state: the nest that `initial_state` or an earlier call returned, or None for a fresh start.
        mask: bool tensor `(B, T)`, True at real positions. Padding is not there at all: it changes
            neither a real output nor the state. Outputs at padding are finite and mean nothing.
        segment_ids: int tensor `(B, T)`, of 32 bits. Neighbouring positions with the same id are
            one sequence; several may be packed in a row, and none sees another.
        training: bool.
        return_state: bool. Gives `(y, state)` in place of `y`.

    Output shape: `(B, T, D)`.
    """

    _rows_apart = False
    """Whether a large batch is mixed in groups of rows where that saves memory and time: for a
    mixer of many or wide intermediate tensors, and no loop over time."""

    _built_width: int | None = None

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self._built_width = int(input_shape[-1])
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
        """The output, and the state, which may be None where it is not asked for."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `mix`.")

    def common(self, time: int) -> dict[str, Any]:
        """What groups of rows share in a fresh call, made once: more options of `mix`."""
        return {}

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        """The state of `mix` before the first position."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `initial_mixer_state`.")

    def call(
        self,
        x: Any,
        state: State | None = None,
        mask: Any = None,
        segment_ids: Any = None,
        training: bool | None = None,
        return_state: bool = False,
    ) -> Any:
        return self._run(x, state, mask, segment_ids, training, return_state)

    def _run(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
        **others: Any,
    ) -> Any:
        """What `call` does; a subclass whose `call` takes more passes `others` on to its `mix`."""
        require_sequence(self, tuple(x.shape))
        require_width(self, x.shape, self._built_width)
        self._require_length(x)
        if state is not None or return_state:
            self._require_causal("state")
        require_rows(self, x, mask=mask, segment_ids=segment_ids)
        if mask is not None:
            mask = ops.cast(mask, "bool")
            # A number that is none would come back in a gradient, as its product with zero.
            x = ops.where(ops.expand_dims(mask, -1), x, ops.zeros_like(x))
        inner = None
        if state is not None:
            self._require_state(state, x)
            inner, last_segment = state["mixer"], state["segment"]
            if segment_ids is not None:
                inner = self._restart(inner, last_segment, mask, segment_ids)
        if state is None and not return_state and not others and self._rows_apart:
            common = {} if x.shape[1] is None else self.common(x.shape[1])

            def rows(x: Any, mask: Any, segment_ids: Any) -> Any:
                return self.mix(x, None, mask, segment_ids, training, False, **common)[0]

            return by_rows(rows, x, mask, segment_ids)
        y, inner = self.mix(x, inner, mask, segment_ids, training, return_state, **others)
        if not return_state:
            return y
        last_segment = state["segment"] if state is not None else _no_segment(ops.shape(x)[0])
        if segment_ids is not None:
            last_segment = _last_segment(last_segment, mask, segment_ids)
        return y, {"mixer": inner, "segment": last_segment}

    def _require_length(self, x: Any) -> None:
        """Refuses an input whose length is unknown, as in a graph of tensorflow for any length."""
        checks.static(f"an input of `{type(self).__name__}`", x, 1)

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        self._require_causal("state")
        self._require_built()
        require_size(self, "batch_size", batch_size, 0)
        if max_length is not None:
            require_size(self, "max_length", max_length, 1)
        inner = self.initial_mixer_state(batch_size, max_length)
        return {"mixer": inner, "segment": _no_segment(batch_size)}

    def _restart(self, inner: State, last_segment: Any, mask: Any, segment_ids: Any) -> State:
        """Empties the state of each row whose first real position begins another segment."""
        first = ops.cast(segment_ids[:, 0], "int32")
        other = first != last_segment
        if mask is not None:
            at = ops.expand_dims(ops.argmax(ops.cast(mask, "int32"), axis=1), 1)
            first = ops.take_along_axis(ops.cast(segment_ids, "int32"), at, axis=1)[:, 0]
            other = ops.logical_and(first != last_segment, ops.any(mask, axis=1))
        other = ops.logical_and(other, last_segment != NO_SEGMENT)
        fresh = self.initial_mixer_state(ops.shape(segment_ids)[0], None)

        def choose(old: Any, new: Any) -> Any:
            # A buffer that has grown keeps its slots: the length beside it is set back to zero.
            if len(old.shape) == 0 or tuple(old.shape[1:]) != tuple(new.shape[1:]):
                return old
            rows = ops.reshape(other, (-1,) + (1,) * (len(old.shape) - 1))
            return ops.where(rows, ops.cast(new, old.dtype), old)

        return _map_common(choose, inner, fresh)


def _map_common(function: Any, old: State, new: State) -> State:
    """Maps over two nests of dicts and lists; a key that only the old one has is kept as it is."""
    if isinstance(old, dict):
        return {k: _map_common(function, old[k], new[k]) if k in new else old[k] for k in old}
    if isinstance(old, list | tuple):
        return type(old)(_map_common(function, a, b) for a, b in zip(old, new, strict=True))
    return function(old, new)


def _no_segment(batch_size: Any) -> Any:
    return ops.full((batch_size,), NO_SEGMENT, dtype="int32")


def _last_segment(before: Any, mask: Any, segment_ids: Any) -> Any:
    segment_ids = ops.cast(segment_ids, "int32")
    if mask is None:
        return segment_ids[:, -1]
    at = ops.shape(mask)[1] - 1 - ops.argmax(ops.cast(ops.flip(mask, axis=1), "int32"), axis=1)
    last = ops.take_along_axis(segment_ids, ops.expand_dims(ops.cast(at, "int32"), 1), axis=1)[:, 0]
    return ops.where(ops.any(mask, axis=1), last, before)
