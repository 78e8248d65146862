"""The checks of a saved configuration: every object in it must be in the closed table.

What passes is written anew, so that what Keras reads is exactly what was checked.
"""

from __future__ import annotations

import re
from typing import Any

import keras

from ember_keras.config.shown import escaped, shown
from ember_keras.models.saving.errors import LoadError
from ember_keras.models.saving.objects import LOOKUPS, NotInTable, Table

_KEYS = {
    "module",
    "class_name",
    "config",
    "registered_name",
    "build_config",
    "compile_config",
    "shared_object_id",
    "name",
    "inbound_nodes",
}
_DATA_TYPES = re.compile(r"(u?int(4|8|16|32|64)|b?float(8|16|32|64)\w*|bool)")
_BAD_NAME = re.compile(r"[/\\\x00-\x1f\x7f]|^\.+$|^$")
_FILES = {"vocabulary", "idf_weights"}
MAX_NODES = 2_000_000


def check_model_config(config: Any, path: object, table: Table) -> tuple[dict[str, Any], bool]:
    """Checks the configuration of a whole model.

    Args:
        config: the plain data of `config.json`.
        path: str or path-like, the file, for errors.
        table: what the file may name.

    Returns:
        The configuration to give to Keras, and whether a layer in it keeps assets.
    """
    checker = _Checker(path, table)
    if not isinstance(config, dict) or "class_name" not in config:
        raise LoadError(
            path,
            f"`config.json` holds {shown(config)}, expected the configuration of a model.",
            "The file is damaged or was not written by Keras: fetch or save it again.",
        )
    checked = checker.walk(config, "model")
    checker.refuse_lost_sharing()
    if not issubclass(checker.classes.get("model", type), keras.Model):
        raise LoadError(
            path,
            f"it describes `{config['class_name']}`, expected a Keras model.",
            "Save a whole model, not a part of one.",
        )
    return checked, checker.keeps_assets


class _Checker:
    def __init__(self, path: object, table: Table):
        self.path = path
        self.table = table
        self.keeps_assets = False
        self.classes: dict[str, type] = {}
        self._shared: dict[int, type] = {}
        self._layers: list[tuple[str, dict[str, Any]]] = []
        self._nodes = 0

    def walk(self, node: Any, where: str) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self.refuse(where, f"it holds more than {MAX_NODES:,} values")
        if node is None or isinstance(node, bool | int | float):
            return node
        try:
            if isinstance(node, str):
                self.table.check_text(node)
                return node
            if isinstance(node, list):
                return [self.walk(item, f"{where}[{i}]") for i, item in enumerate(node)]
            if "class_name" in node:
                return self._object(node, where)
        except NotInTable as error:
            self.refuse(where, str(error))
        return {key: self.walk(value, f"{where}.{key}") for key, value in node.items()}

    def refuse(self, where: str, problem: str) -> None:
        raise LoadError(
            self.path,
            f"at `{escaped(where, 200)}`, {problem}.",
            "Configurations name only what Keras and Ember Keras define; a class or function of "
            "your own is passed as `custom_objects={'Name': Name}`.",
        )

    def _object(self, node: dict[str, Any], where: str) -> dict[str, Any]:
        name = node["class_name"]
        if not isinstance(name, str) or "config" not in node or not _KEYS.issuperset(node):
            self.refuse(where, f"{shown(node)} is not a saved object")
        if name.startswith("__"):
            return self._value(name, node, where)
        if name == "function":
            return self.table.function_of(node.get("module"), node["config"])
        cls, head = self.table.class_of(node.get("module"), name, node.get("registered_name"))
        self.classes[where] = cls
        config = node["config"] if node["config"] is not None else {}
        if not isinstance(config, dict):
            self.refuse(
                where, f"the configuration of `{name}` is {shown(config)}, expected a mapping"
            )
        if "class_name" in config:
            self.refuse(where, f"the configuration of `{name}` is itself {shown(config)}")
        self._check_names(cls, config, node, where)
        self._check_files(cls, config, where)
        checked = {**head, "config": self.walk(config, where)}
        for key in ("build_config", "compile_config", "name", "inbound_nodes"):
            if key in node:
                checked[key] = self.walk(node[key], f"{where}.{key}")
        if checked.get("compile_config"):
            checked["compile_config"] = _portable(checked["compile_config"])
        if "shared_object_id" in node:
            checked["shared_object_id"] = self._share(node["shared_object_id"], cls, where)
        if issubclass(cls, keras.Operation):
            self._layers.append((where, checked))
        return checked

    def refuse_lost_sharing(self) -> None:
        """Refuses a layer that stands in two places, where Keras would give each its own weights.

        Keras numbers a layer that it meets again, but loses the number of the first place, and that
        of the layer's nodes, whenever the first place is in a functional model.
        """
        for where, layer in self._layers:
            number = layer.get("shared_object_id")
            if number is None:
                continue
            same = [
                other.get("shared_object_id") for _, other in self._layers if _same(other, layer)
            ]
            if "inbound_nodes" in layer or same.count(number) < 2 or None in same:
                self.refuse(
                    where,
                    f"the layer {layer.get('name') or layer['config'].get('name')!r} stands in "
                    "more than one part of the model; Keras's files do not tell that these are one "
                    "layer, so save the weights alone, and build the model from its code",
                )

    def _value(self, name: str, node: dict[str, Any], where: str) -> dict[str, Any]:
        config = node["config"]
        checked = {"class_name": name, "config": self.walk(config, where)}
        keys = {
            "__keras_tensor__": {"shape", "dtype", "keras_history"},
            "__tensor__": {"value", "dtype"},
            "__numpy__": {"value", "dtype"},
            "__bytes__": {"value"},
            "__slice__": {"start", "stop", "step"},
            "__ellipsis__": set(),
        }
        if name not in keys:
            what = "Python code" if name == "__lambda__" else f"a value of the kind {shown(name)}"
            self.refuse(where, f"it holds {what}, which is never loaded")
        if not isinstance(config, dict) or set(config) != keys[name]:
            self.refuse(where, f"{shown(node)} is not a saved value")
        dtype = config.get("dtype", "bool")
        if not isinstance(dtype, str) or not _DATA_TYPES.fullmatch(dtype):
            if name != "__keras_tensor__" or dtype not in ("string", "complex64", "complex128"):
                self.refuse(where, f"it holds data of the type {shown(dtype)}, expected numbers")
        return checked

    def _check_names(
        self, cls: type, config: dict[str, Any], node: dict[str, Any], where: str
    ) -> None:
        if not issubclass(cls, keras.Operation):
            return
        for name in (config.get("name"), node.get("name")):
            if name is not None and (not isinstance(name, str) or _BAD_NAME.search(name)):
                self.refuse(
                    where, f"a layer is called {shown(name)}, expected a name without separators"
                )

    def _check_files(self, cls: type, config: dict[str, Any], where: str) -> None:
        if cls.__name__ not in LOOKUPS:
            return
        self.keeps_assets = True
        for key in _FILES & set(config):
            if isinstance(config[key], str):
                self.refuse(
                    where,
                    f"`{key}` of `{cls.__name__}` is {shown(config[key])}, expected a list: "
                    "no path or address in a file is opened",
                )

    def _share(self, number: Any, cls: type, where: str) -> int:
        if type(number) is not int or self._shared.setdefault(number, cls) is not cls:
            self.refuse(where, f"it shares the object {shown(number)}, which is of another class")
        return number


def _same(one: Any, other: Any) -> bool:
    """Whether two checked configurations say the same, but for where their layer is used."""
    left_out = {"shared_object_id", "inbound_nodes", "build_config"}
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() - left_out
        return keys == other.keys() - left_out and all(_same(one[k], other[k]) for k in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _portable(compile_config: Any) -> Any:
    """Leaves the choice of `jit_compile`, which Keras saves resolved, to the backend that loads."""
    if isinstance(compile_config, dict) and "jit_compile" in compile_config:
        return {**compile_config, "jit_compile": "auto"}
    return compile_config
