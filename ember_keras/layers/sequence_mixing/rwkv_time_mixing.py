"""What the time mixers of RWKV share: heads, the shift by a position, the norm and the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from ember_keras.layers.base import State, require_sequence, wide
from ember_keras.layers.common import heads
from ember_keras.layers.common.projection import Projection
from ember_keras.layers.common.token_shift import TokenShift
from ember_keras.layers.sequence_mixing.base import SequenceMixer


class RWKVTimeMixer(SequenceMixer):
    """A matrix a head behind a token shift; a subclass says what is read, written and forgotten."""

    _shares: dict[str, float] = {}
    """The mixes of the shift: the power that falls along the channels, by name."""

    _rows_apart = True

    def __init__(
        self,
        num_heads: int = 4,
        head_dim: int | None = None,
        inner_dim: int | None = None,
        epsilon: float = 64e-5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        heads.require_at_least(self, 1, num_heads=num_heads, head_dim=head_dim, inner_dim=inner_dim)
        heads.require_positive(self, epsilon=epsilon)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.inner_dim = inner_dim
        self.epsilon = epsilon
        self.shift = TokenShift(dtype=self.dtype_policy, name="shift")

    def build(self, input_shape: Any) -> None:
        width = require_sequence(self, input_shape)
        self._inner = inner = self.inner_dim or width
        if self.head_dim is None:
            self._heads = self.num_heads
            self._head_dim = heads.head_width(self, inner, self.num_heads)
        else:
            self._heads = heads.head_width(self, inner, self.head_dim, "head_dim or inner_dim")
            self._head_dim = self.head_dim
        self.shift.build(input_shape)
        self._mixes = {
            name: self.add_weight((width,), share_of_previous(power), name=f"mu_{name}")
            for name, power in self._shares.items()
        }
        self.receptance = heads.dense(self, inner, "receptance", width)
        self.key = heads.dense(self, inner, "key", width)
        self.value = heads.dense(self, inner, "value", width)
        self.norm = heads.HeadNorm(
            "layer",
            shared=False,
            epsilon=self.epsilon,
            bias=True,
            dtype=self.dtype_policy,
            name="norm",
        )
        self.norm.build((None, None, self._heads, self._head_dim))
        self.output_projection = heads.dense(self, width, "output_projection", inner)
        self.build_more(width, inner)
        super().build(input_shape)

    def build_more(self, width: int, inner: int) -> None:
        """Makes the weights that this generation has and others do not."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `build_more`.")

    def mix(
        self,
        x: Any,
        state: State | None,
        mask: Any,
        segment_ids: Any,
        training: bool | None,
        return_state: bool,
    ) -> tuple[Any, State | None]:
        options = {"mask": mask, "segment_ids": segment_ids, "return_state": True}
        before = state or {"shift": None, "matrix": None}
        previous, shift = self.shift(x, state=before["shift"], **options)
        options["initial_state"] = before["matrix"]
        o, gate, matrix = self.recur(x, previous - x, options)
        o = ops.cast(heads.join_heads(o), self.compute_dtype)
        return self.output_projection(o * gate), {"shift": shift, "matrix": matrix}

    def recur(self, x: Any, change: Any, options: dict[str, Any]) -> tuple[Any, Any, Any]:
        """The normed heads `(B, T, H, V)`, their gate `(B, T, H V)`, and the matrix afterwards.

        Args:
            x: tensor `(B, T, D)`.
            change: tensor `(B, T, D)`, what takes each position to the one before.
            options: of the engine.
        """
        raise NotImplementedError(f"`{type(self).__name__}` defines no `recur`.")

    def split(self, x: Any) -> Any:
        """`(B, T, H W)` as `(B, T, H, W)`, in float32 or wider."""
        return wide(heads.split_heads(x, self._heads))

    def channels(self, x: Any) -> Any:
        """A weight of one a channel as `(H, W)`, in float32 or wider."""
        return ops.reshape(wide(x), (self._heads, self._head_dim))

    def narrow_dense(self, units: int, name: str, width: int, start: Any) -> Projection:
        """A map of a low-rank pair, with its own start."""
        return heads.dense(self, units, name, width, kernel_initializer=start)

    def initial_mixer_state(self, batch_size: int, max_length: int | None) -> State:
        shape = (batch_size, self._heads, self._head_dim, self._head_dim)
        return {
            "shift": self.shift.initial_state(batch_size),
            "matrix": ops.zeros(shape, heads.state_dtype(self)),
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "inner_dim": self.inner_dim,
            "epsilon": self.epsilon,
        }


def share_of_previous(power: float) -> Callable[..., Any]:
    """An initializer `1 - (i / D)^power`: 1, the position before alone, at the first channel."""

    def start(shape: Any, dtype: Any = None) -> Any:
        place = ops.arange(shape[0], dtype="float32") / shape[0]
        return ops.cast(1.0 - place**power, dtype or "float32")

    return start


def rising(first: float, last: float, power: float) -> Callable[..., Any]:
    """An initializer from `first` up to `last` along the channels, by a power of the place."""

    def start(shape: Any, dtype: Any = None) -> Any:
        place = ops.arange(shape[0], dtype="float32") / max(shape[0] - 1, 1)
        return ops.cast(first + (last - first) * place**power, dtype or "float32")

    return start


def zigzag(shape: Any, dtype: Any = None) -> Any:
    """0, 0.1, -0.1 in turns along the channels of all heads: the start of the bonus."""
    size = shape[0] * shape[1]
    place = ops.arange(1, size + 1, dtype="float32")
    turns = (place - 3.0 * ops.floor(place / 3.0) - 1.0) * 0.1
    return ops.cast(ops.reshape(turns, shape), dtype or "float32")
