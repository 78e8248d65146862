"""What a built model keeps in a weights file, and where, told without writing anything."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from typing import Any

import h5py
import keras

from ember_keras.models.saving.errors import LoadError, broken_config
from ember_keras.models.saving.hdf5 import Stored

_SAVEABLE = (keras.Operation, keras.metrics.Metric, keras.losses.Loss, keras.optimizers.Optimizer)


def saved_arrays(
    model: keras.Model, skip: tuple[Any, ...] = ()
) -> dict[str, tuple[tuple[int, ...], str]]:
    """What `model` saves: the name of each array, with its shape and kind (float, int or bool).

    Args:
        model: a built model.
        skip: tuple of parts that are left out, such as the optimizer.
    """
    arrays: dict[str, tuple[tuple[int, ...], str]] = {}
    for path, part in saved_parts(model, skip):
        prefix = f"{path}/vars" if path else "vars"
        for key, value in _own_arrays(part).items():
            arrays[f"{prefix}/{key}"] = (tuple(value.shape), kind_of(value.dtype))
    return arrays


def kind_of(dtype: Any) -> str:
    """`float`, `int` or `bool`."""
    name = keras.backend.standardize_dtype(dtype)
    if "float" in name:
        return "float"
    return "bool" if name == "bool" else "int"


def compare(
    expected: dict[str, tuple[tuple[int, ...], str]],
    stored: dict[str, Stored],
    path: object,
    extra: str = r"(?!)",
) -> None:
    """Raises `LoadError` unless a weights file holds just the arrays that a model expects.

    Args:
        expected: what the model keeps, from `saved_arrays`.
        stored: what the file declares, from `hdf5.stored_arrays`.
        path: str or path-like, the file, for errors.
        extra: str, a pattern of names that the file may hold beyond what the model expects.
    """
    mend = "Build the model that was saved: the same configuration and the same input shape."
    without = "Pass `optimizer=False` to leave the optimizer out (`compile=False` to `load_model`)."
    for name, (shape, kind) in expected.items():
        hint = without if name.startswith("optimizer/") else mend
        if name not in stored:
            missing = sum(other not in stored for other in expected)
            raise LoadError(
                path,
                f"{missing} of the {len(expected)} arrays that the model keeps are not in it, "
                f"among them `{name}` of shape {shape}.",
                hint,
            )
        if stored[name].shape != shape:
            raise LoadError(
                path, f"`{name}` has the shape {stored[name].shape}, expected {shape}.", hint
            )
        if stored[name].kind != kind:
            raise LoadError(path, f"`{name}` has {stored[name].kind} data, expected {kind}.", hint)
    unknown = [name for name in stored if name not in expected and not re.search(extra, name)]
    if unknown:
        raise LoadError(
            path,
            f"it holds {len(unknown)} arrays that the model has no place for, among them "
            f"`{unknown[0]}` of shape {stored[unknown[0]].shape}.",
            without if unknown[0].startswith("optimizer/") else mend,
        )


def write_arrays(model: keras.Model) -> memoryview:
    """The bytes of `model`'s weights file, as Keras writes it.

    They are made in memory: where a disk runs full under HDF5, the process crashes.
    """
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for path, part in saved_parts(model):
            arrays = _own_arrays(part)
            name = getattr(part, "name", None)
            if not arrays and not isinstance(name, str):
                continue
            group = file.require_group(f"{path}/vars" if path else "vars")
            if isinstance(name, str):
                group.attrs["name"] = name
            for key, value in arrays.items():
                array = keras.ops.convert_to_numpy(value)
                stored = group.create_dataset(key, data=array)
                if keras.backend.standardize_dtype(array.dtype) == "bfloat16":
                    stored.attrs["dtype"] = "bfloat16"
    return data.getbuffer()


def saved_parts(model: keras.Model, skip: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every part of `model` that keeps state, with its place in the file, in Keras's order."""
    yield from _part(model, "", {id(part) for part in skip})


def _part(part: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(part) in seen:
        return
    yield path, part
    seen.add(id(part))
    for name, child in _children(part):
        inner = f"{path}/{name}" if path else name
        if isinstance(child, _SAVEABLE):
            yield from _part(child, inner, seen)
        elif isinstance(child, list | dict | tuple):
            yield from _container(child, inner, seen, set())


def _container(
    container: Any, path: str, seen: set[int], containers: set[int]
) -> Iterator[tuple[str, Any]]:
    if id(container) in containers:
        return
    containers.add(id(container))
    used: dict[str, int] = {}
    for child in list(container.values()) if isinstance(container, dict) else container:
        if isinstance(child, _SAVEABLE):
            yield from _part(
                child, f"{path}/{_unique(_snake_case(type(child).__name__), used)}", seen
            )
        elif isinstance(child, list | dict | tuple):
            yield from _container(child, f"{path}/{_unique('container', used)}", seen, containers)


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _children(part: Any) -> Iterator[tuple[str, Any]]:
    if type(part).__name__ == "CompileMetrics":
        return  # Its parts are the metrics of `compile`, which Keras never saves.
    skip = _own_names(_family(part))
    if _family(part) in ("Sequential", "Functional"):
        yield "layers", part.layers
    # Private attributes come last, as Keras visits them.
    for name in sorted(dir(part), key=lambda name: f"~{name}" if name.startswith("_") else name):
        if name.startswith("__") or name in skip:
            continue
        try:
            child = getattr(part, name)
        except broken_config():
            continue  # A property that has no value yet.
        yield name, child


def _family(part: Any) -> str:
    if isinstance(part, keras.Sequential):
        return "Sequential"
    if isinstance(part, _functional()):
        return "Functional"
    for family in ("Layer", "Optimizer", "Metric", "Loss"):
        if isinstance(part, getattr(keras, family)):
            return family
    return "Operation"


@functools.cache
def _functional() -> type:
    return next(cls for cls in keras.Model.__subclasses__() if cls.__name__ == "Functional")


@functools.cache
def _own_names(family: str) -> frozenset[str]:
    """The attributes that Keras's own base class has, which hold no parts."""
    layer = dir(keras.layers.Layer())
    names = {
        "Operation": lambda: dir(keras.Operation()),
        "Layer": lambda: layer,
        "Functional": lambda: [*layer, "operations", "_operations"],
        "Sequential": lambda: [*layer, "_functional"],
        "Metric": lambda: dir(keras.metrics.Metric()),
        "Loss": lambda: dir(keras.losses.Loss()),
        "Optimizer": lambda: set(dir(keras.optimizers.Optimizer(1.0))) - {"variables"},
    }[family]()
    return frozenset(names) | {"_self_unconditional_dependency_names"}


def _own_arrays(part: Any) -> dict[str, Any]:
    """What one part saves itself; variables where it can be helped, so that nothing is copied."""
    stock = keras.optimizers.Optimizer.save_own_variables
    if getattr(type(part), "save_own_variables", None) is stock:
        return {str(i): variable for i, variable in enumerate(part.variables)}
    found: dict[str, Any] = {}
    if hasattr(part, "save_own_variables"):
        part.save_own_variables(found)
    return found
