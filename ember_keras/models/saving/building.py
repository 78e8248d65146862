"""Building a model from a checked configuration, within the memory that its weights warrant."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

from ember_keras.models.saving.archive import CONFIG, METADATA, WEIGHTS
from ember_keras.models.saving.budget import Budget
from ember_keras.models.saving.errors import LoadError, broken_config
from ember_keras.models.saving.hdf5 import Stored
from ember_keras.models.saving.objects import Table

MULTIPLE = 8
ROOM = 64 << 20
LAYERS_EACH = 20
LAYERS = 500
"""What a model may take: `MULTIPLE` times the bytes of its weights and `ROOM`; and so many layers
for each array, and beyond."""
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
    limit = MULTIPLE * sum(array.nbytes for array in stored.values()) + ROOM

    def refuse(what: str) -> LoadError:
        return LoadError(
            path,
            f"its configuration asks for {what}, many times what the file holds.",
            "The configuration and the weights do not belong together: do not trust this file.",
        )

    with Budget(limit, LAYERS_EACH * len(stored) + LAYERS, refuse) as budget:
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
