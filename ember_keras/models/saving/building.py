"""Building a model from a checked configuration, within the memory that its weights warrant."""

from __future__ import annotations

import contextlib
import contextvars
import json
import math
import re
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from ember_keras.models.saving.archive import CONFIG, METADATA, WEIGHTS
from ember_keras.models.saving.errors import LoadError, broken_config
from ember_keras.models.saving.hdf5 import Stored
from ember_keras.models.saving.objects import Table

MULTIPLE = 8
ROOM = 64 << 20
OVERHEAD = 1 << 10
LAYERS_EACH = 20
LAYERS = 500
"""What a model may take: `MULTIPLE` times the bytes of its weights and `ROOM`, each variable
counted `OVERHEAD` bytes larger than its data; and so many layers for each array, and beyond."""
_ROOT = "ember_keras>SavedModelInside"


def build_model(
    config: dict[str, Any], table: Table, stored: dict[str, Stored], path: object, compile_it: bool
) -> keras.Model:
    """Builds and compiles the model of a checked configuration.

    Args:
        config: dict, from `check_model_config`.
        table: the table that the configuration was checked against.
        stored: what the weights file declares; the model may take a small multiple of its size.
        path: str or path-like, the file, for errors.
        compile_it: bool, whether to compile the model as it was when saved.
    """
    compile_config = config.pop("compile_config", None)
    with _within_budget(stored, path) as budget:
        try:
            with keras.saving.custom_object_scope(table.used), warnings.catch_warnings():
                # What Keras says where it cannot build a model; `_require_built` says it in full.
                warnings.filterwarnings("ignore", message=".*had a build config, but the model")
                model = _deserialise(config, table.used)
                budget.check()
                _require_built(model, config)
                if compile_it and compile_config:
                    _compile(model, compile_config, stored)
        except LoadError:
            raise
        except broken_config() as error:
            budget.check()
            raise LoadError(
                path,
                f"its configuration cannot be built ({_cause(error)}).",
                "It was edited, or saved by another version of Keras or of a class that it uses.",
            ) from error
    return model


def _cause(error: BaseException) -> str:
    """What a part says of its own configuration, without all that Keras puts around it."""
    while "could not be deserialized properly" in str(error) and error.__context__ is not None:
        error = error.__context__
    part = re.match(r"Error when deserializing class ('\w+') using config=", str(error))
    if part and error.__context__ is not None:
        return f"{part[1]}: {str(error.__context__).rstrip('.')}"
    return str(error).rstrip(".")


def _require_built(model: Any, config: dict[str, Any]) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"received {type(model).__name__}, expected a Keras model")
    if not model.built and config.get("build_config"):
        # Keras hides why a model cannot be built: this raises it.
        model.build(config["build_config"].get("input_shape"))
    if not all(layer.built for layer in model._flatten_layers(include_self=False)):
        _build_by_running(model, config.get("build_config") or {})
    if not model.built:
        raise ValueError("the model was saved before it was built, so it has no weights")


def _build_by_running(model: keras.Model, shapes: dict[str, Any]) -> None:
    """Runs a subclassed model once on zeros, which builds its parts.

    Keras does so itself, but under numpy on whatever memory holds: as tokens, most of it is no row
    of an embedding, and Keras says nothing of the error.
    """
    for dtype in (keras.config.floatx(), "int32"):

        def zeros(shape: Any, dtype: str = dtype) -> Any:
            return keras.ops.zeros([2 if size is None else size for size in shape], dtype)

        with contextlib.suppress(*broken_config()):
            if "input_shape" in shapes:
                model(keras.tree.map_shape_structure(zeros, shapes["input_shape"]))
                return
            if "shapes_dict" in shapes:
                named = shapes["shapes_dict"].items()
                model(**{key.removesuffix("_shape"): zeros(shape) for key, shape in named})
                return


class _Inside:
    """Stands for a model in a file of our own, whose `from_config` builds the model.

    Keras joins objects that a model shares between its parts only while `load_model` runs, so that
    a configuration with such objects cannot be built otherwise.
    """

    def __init__(self, config: dict[str, Any], custom_objects: dict[str, Any]):
        self._config = config
        self._custom_objects = custom_objects
        self.model: Any = None

    def from_config(self, config: dict[str, Any]) -> keras.layers.Layer:
        self.model = keras.saving.deserialize_keras_object(
            self._config, custom_objects=self._custom_objects, safe_mode=True
        )
        return keras.layers.Identity()


def _deserialise(config: dict[str, Any], custom_objects: dict[str, Any]) -> Any:
    inside = _Inside(config, custom_objects)
    root: dict[str, Any] = {
        "module": None,
        "class_name": "Inside",
        "config": {},
        "registered_name": _ROOT,
    }
    with tempfile.TemporaryDirectory(prefix="ember-keras-") as folder:
        shell = Path(folder) / "shell.keras"
        weights = Path(folder) / WEIGHTS
        h5py.File(weights, "w").close()
        with zipfile.ZipFile(shell, "w") as archive:
            archive.writestr(METADATA, json.dumps({"keras_version": keras.__version__}))
            archive.writestr(CONFIG, json.dumps(root))
            archive.write(weights, WEIGHTS)
        keras.saving.load_model(
            shell, custom_objects={**custom_objects, _ROOT: inside}, compile=False, safe_mode=True
        )
    return inside.model


def _compile(model: Any, config: dict[str, Any], stored: dict[str, Stored]) -> None:
    if (
        type(model).compile_from_config is not keras.Model.compile_from_config
        or type(model).compile is not keras.Model.compile
    ):
        model.compile_from_config(config)
        return
    model.compile(**keras.saving.deserialize_keras_object(config, safe_mode=True))
    saved = sum(name.startswith("optimizer/vars/") for name in stored)
    # An optimizer that had not begun when the model was saved has not begun when it is loaded.
    if model.built and model.optimizer is not None and saved > len(model.optimizer.variables):
        model.optimizer.build(model.trainable_variables)


_budget: contextvars.ContextVar[_Budget | None] = contextvars.ContextVar("budget", default=None)
_lock = threading.Lock()
_users = 0
_new_variable = keras.Variable.__init__
_new_layer = keras.layers.Layer.__init__


class _Budget:
    def __init__(self, stored: dict[str, Stored], path: object):
        self.limit = MULTIPLE * sum(array.nbytes for array in stored.values()) + ROOM
        self.left = self.limit
        self.layers = LAYERS_EACH * len(stored) + LAYERS
        self.path = path
        self.error: LoadError | None = None

    def take_variable(self, shape: Any, dtype: Any) -> None:
        sizes = [size for size in shape or () if isinstance(size, int)]
        self.left -= math.prod(sizes) * _item_size(dtype) + OVERHEAD
        if self.left < 0:
            self._refuse(f"more than {self.limit:,} bytes of weights")

    def take_layer(self) -> None:
        self.layers -= 1
        if self.layers < 0:
            self._refuse("too many layers")

    def check(self) -> None:
        """Says again what was refused, where Keras has swallowed it."""
        if self.error is not None:
            raise self.error

    def _refuse(self, what: str) -> None:
        self.error = LoadError(
            self.path,
            f"its configuration asks for {what}, many times what the file holds.",
            "The configuration and the weights do not belong together: do not trust this file.",
        )
        raise self.error


def _item_size(dtype: Any) -> int:
    bits = re.search(r"\d+", keras.backend.standardize_dtype(dtype))
    return max(int(bits.group()) // 8, 1) if bits else 1


def _counted_variable(
    self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any
) -> None:
    budget = _budget.get()
    if budget is not None:
        budget.take_variable(getattr(initializer, "shape", ()) if shape is None else shape, dtype)
    _new_variable(self, initializer, shape, dtype, *args, **kwargs)


def _counted_layer(self: Any, *args: Any, **kwargs: Any) -> None:
    budget = _budget.get()
    if budget is not None:
        budget.take_layer()
    _new_layer(self, *args, **kwargs)


@contextlib.contextmanager
def _within_budget(stored: dict[str, Stored], path: object) -> Iterator[_Budget]:
    """Refuses, while a file is loaded in this context, a model out of proportion to its weights.

    A configuration of a few bytes can ask for any amount of memory, and Keras takes it as soon as a
    variable is made. There is no other place to say no before that, so Keras's classes are given
    constructors that count, for as long as a file is being loaded.
    """
    global _users  # noqa: PLW0603
    budget = _Budget(stored, path)
    token = _budget.set(budget)
    with _lock:
        _users += 1
        keras.Variable.__init__ = _counted_variable
        keras.layers.Layer.__init__ = _counted_layer
    try:
        yield budget
    finally:
        _budget.reset(token)
        with _lock:
            _users -= 1
            if not _users:
                keras.Variable.__init__ = _new_variable
                keras.layers.Layer.__init__ = _new_layer
