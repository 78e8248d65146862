"""What every Ember layer and model shares: how arguments come in and results go out."""

from __future__ import annotations

import dataclasses
import numbers
from typing import TYPE_CHECKING, Any

import keras

from ember_keras.backend import require_float64
from ember_keras.layers.arguments import check_types, unknown_arguments
from ember_keras.ops.tensor import call_unwrapped

if TYPE_CHECKING:
    from keras.layers import Layer as Mixin
else:
    Mixin = object  # What is mixed into a Keras layer is no layer by itself.

State = Any
"""What a mixer carries from the past: a nest of tensors of fixed structure."""


ROWS = ("mask", "segment_ids", "time_deltas")
"""What a call takes `(B, T)` of, beside its input."""


class EmberCall(Mixin):
    """A mixin over a Keras layer or model.

    Its first input is converted to the layer's compute dtype, as Keras does. Its other tensors
    (state, masks, segment ids) keep their own dtype: a float32 state stays float32 under
    `mixed_bfloat16`. `EmberTensor` in gives `EmberTensor` out.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        check_types(cls, args, kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any):
        try:
            super().__init__(*args, **kwargs)
        except (TypeError, ValueError) as error:
            unknown = unknown_arguments(type(self), kwargs)
            if unknown:
                raise type(error)(unknown) from None
            raise
        if "float64" in (self.compute_dtype, self.variable_dtype):
            require_float64(f"`{type(self).__name__}` received dtype='float64'")
        if "float" not in self.compute_dtype:
            raise ValueError(
                f"`{type(self).__name__}` received dtype='{self.compute_dtype}', expected a type "
                "of floating point numbers such as 'float32' or 'mixed_bfloat16'."
            )
        self._convert_input_args = False

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if args:
            raise TypeError(
                f"`{type(self).__name__}` takes its input alone by position; received "
                f"{len(args)} more. Pass the others by keyword: state=..., mask=..., "
                f"segment_ids=..."
            )
        return call_unwrapped(self._call_on_tensors, x, **kwargs)

    def _call_on_tensors(self, x: Any, **kwargs: Any) -> Any:
        mask = getattr(x, "_keras_mask", None)
        x = keras.tree.map_structure(self._convert_input, x)
        kwargs = {
            key: keras.ops.convert_to_tensor(value)
            if key in ROWS and isinstance(value, list | tuple)
            else keras.tree.map_structure(_as_tensor, value)
            for key, value in kwargs.items()
        }
        if mask is not None and self._call_has_mask_arg and kwargs.get("mask") is None:
            kwargs["mask"] = mask  # A cast makes a new tensor, which has lost its mask.
        return super().__call__(x, **kwargs)

    def _convert_input(self, x: Any) -> Any:
        return self.dtype_policy.convert_input(x, self.autocast, self.input_dtype)


def _as_tensor(x: Any) -> Any:
    if hasattr(x, "__array__") and not isinstance(x, keras.KerasTensor):
        return keras.ops.convert_to_tensor(x)
    return x


def wide(x: Any) -> Any:
    """`x` in the dtype of decays, angles and sums: float32, or float64 where it is that already."""
    x = keras.ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) == "float64":
        return x
    return keras.ops.cast(x, "float32")


def wide_dtype(dtype: str) -> str:
    """The dtype of the state of a recurrence that computes in `dtype`."""
    return "float64" if dtype == "float64" else "float32"


class EmberLayer(EmberCall, keras.layers.Layer):
    """A Keras layer that keeps the dtype of its state and takes `EmberTensor`.

    Integers and flags that it is given are numbers of its dtype.
    """

    def _convert_input(self, x: Any) -> Any:
        x = super()._convert_input(x)
        dtype = keras.backend.standardize_dtype(x.dtype) if hasattr(x, "dtype") else ""
        if "complex" in dtype:
            raise TypeError(
                f"`{type(self).__name__}` received an input of dtype {dtype}, expected real "
                "numbers. Give the real and imaginary parts as channels."
            )
        is_number = "int" not in dtype and dtype != "bool"
        return x if is_number else keras.ops.cast(x, self.input_dtype)

    def output_weights(self) -> list[Any]:
        """The weights whose scale is that of the output; [] where there are none.

        A model of `depth_scale` has them start smaller. Here those of the `output_projection`.
        """
        projection = getattr(self, "output_projection", None)
        return [] if projection is None else list(projection.weights)

    def add_wide_weight(self, shape: Any, initializer: Any, name: str) -> Any:
        """Adds a weight that is float32 or wider under every policy.

        For poles, decays and angles: one that is rounded to half precision is another memory.
        """
        dtype = wide_dtype(self.variable_dtype)
        return self.add_weight(shape, initializer, dtype=dtype, name=name, autocast=False)


def require_sequence(layer: keras.layers.Layer, shape: Any) -> int:
    """The width D of an input shape `(B, T, D)`; anything else is a `ValueError`."""
    if not isinstance(shape, tuple | list) or len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"`{type(layer).__name__}` received an input of shape {shape}, expected (B, T, D) "
            "with a known D. Add the missing axis, or reshape: a single feature is (B, T, 1)."
        )
    if shape[1] == 0:
        raise ValueError(
            f"`{type(layer).__name__}` received a sequence of length 0 (shape {tuple(shape)}), "
            "expected at least one position. Drop empty sequences."
        )
    return int(shape[-1])


def require_width(layer: keras.layers.Layer, shape: Any, width: int | None) -> None:
    """Refuses an input of another width than a layer was built for."""
    if width is not None and shape[-1] != width:
        raise ValueError(
            f"`{type(layer).__name__}` received an input of shape {tuple(shape)}, expected "
            f"(B, T, {width}): it was built for a width of {width}."
        )


def require_size(layer: keras.layers.Layer, name: str, value: Any, least: int) -> None:
    """Refuses a plain value that is no integer of at least `least`; a tensor is let through."""
    if value is None or isinstance(value, bool | float | str):
        wrong = True
    else:
        wrong = isinstance(value, numbers.Integral) and int(value) < least
    if wrong:
        raise ValueError(
            f"`{type(layer).__name__}` received {name}={value!r}, expected an integer of at least "
            f"{least}."
        )


def require_rows(layer: keras.layers.Layer, x: Any, **given: Any) -> None:
    """Refuses a mask or segment ids that are not `(B, T)` of an input `(B, T, ...)`."""
    expected = tuple(x.shape[:2])
    for name, value in given.items():
        if value is None:
            continue
        if not hasattr(value, "shape"):
            raise TypeError(
                f"`{type(layer).__name__}` received {name}={value!r}, expected a tensor (B, T) = "
                f"{expected}."
            )
        shape = tuple(value.shape)
        known = [(a, b) for a, b in zip(shape, expected, strict=False) if None not in (a, b)]
        if len(shape) != 2 or any(a != b for a, b in known):
            raise ValueError(
                f"`{type(layer).__name__}` received {name} of shape {shape}, expected (B, T) = "
                f"{expected}, as its input has."
            )
        dtype = keras.backend.standardize_dtype(value.dtype)
        if name == "segment_ids" and "int" not in dtype:
            raise TypeError(
                f"`{type(layer).__name__}` received segment_ids of dtype {dtype}, expected "
                "integers. Cast them."
            )


@dataclasses.dataclass(frozen=True)
class StateShape:
    """The shape of a tensor of a state without its rows; a size of 0 grows with the past."""

    sizes: tuple[int, ...]

    def holds(self, shape: tuple[Any, ...]) -> bool:
        """Whether a tensor `(B, ...)`, or a scalar where the form has one, is of these sizes."""
        sizes = tuple(shape[1:])
        return len(sizes) == len(self.sizes) and all(
            known == 0 or size in (None, known)
            for size, known in zip(sizes, self.sizes, strict=True)
        )


def require_state(layer: Any, state: Any, form: Any, batch_size: Any) -> None:
    """Refuses a state that is no nest of the `form` that `initial_state` gives, or of other rows.

    Args:
        layer: the layer that received it.
        state: what it received.
        form: a nest with a `StateShape` for each tensor. A state whose past has a length may hold
            more keys than it.
        batch_size: int, or None where it is unknown: B of the input.
    """
    problem = _difference(state, form, "state")
    if problem is None and isinstance(batch_size, int):
        rows = {x.shape[0] for x in _held(state, form) if len(x.shape)} - {None, batch_size}
        if rows:
            problem = f"of {rows.pop()} rows, and an input of {batch_size}"
    if problem is not None:
        raise ValueError(
            f"`{type(layer).__name__}` received a state {problem}. Pass the state that this "
            "layer's `initial_state` or an earlier call of it returned."
        )


def _held(state: Any, form: Any) -> list[Any]:
    """The tensors of a state that its form names."""
    if isinstance(form, dict):
        return [x for key in form for x in _held(state[key], form[key])]
    if isinstance(form, list | tuple):
        return [x for pair in zip(state, form, strict=True) for x in _held(*pair)]
    return [state]


def _difference(state: Any, form: Any, path: str) -> str | None:
    if isinstance(form, dict):
        if not isinstance(state, dict) or not set(form) <= set(state):
            keys = sorted(state) if isinstance(state, dict) else type(state).__name__
            return f"with {keys} at `{path}`, expected the keys {sorted(form)}"
        if "length" not in form and set(state) != set(form):
            return f"with {sorted(state)} at `{path}`, expected the keys {sorted(form)}"
        pairs = [(state[key], form[key], f"{path}[{key!r}]") for key in form]
    elif isinstance(form, list | tuple):
        if not isinstance(state, list | tuple) or len(state) != len(form):
            size = len(state) if isinstance(state, list | tuple) else type(state).__name__
            return f"with {size} at `{path}`, expected a list of {len(form)}"
        pairs = [(state[i], form[i], f"{path}[{i}]") for i in range(len(form))]
    else:
        if not hasattr(state, "shape"):
            return f"with {type(state).__name__} at `{path}`, expected a tensor"
        if not form.holds(tuple(state.shape)):
            sizes = ", ".join("any" if size == 0 else str(size) for size in ("B", *form.sizes))
            return f"of shape {tuple(state.shape)} at `{path}`, expected ({sizes})"
        return None
    return next((found for pair in pairs if (found := _difference(*pair))), None)
