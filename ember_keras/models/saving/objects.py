"""The closed table of what a saved configuration may name.

Keras's own layers, optimizers, losses and the like; the classes of our registries; and what the
caller passes as `custom_objects`. A name is looked up here, never imported.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from ember_keras import registry
from ember_keras.config.shown import escaped, shown

_LAYER, _OPTIMIZER = keras.layers.Layer, keras.optimizers.Optimizer
_BASES = (
    _LAYER,
    _OPTIMIZER,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap,
    keras.quantizers.Quantizer,
    keras.quantizers.QuantizationConfig,
    keras.random.SeedGenerator,
)
_NAMESPACES = {
    "keras": keras,
    "keras.models": keras.models,
    "keras.layers": keras.layers,
    "keras.optimizers": keras.optimizers,
    "keras.optimizers.schedules": keras.optimizers.schedules,
    "keras.losses": keras.losses,
    "keras.metrics": keras.metrics,
    "keras.initializers": keras.initializers,
    "keras.regularizers": keras.regularizers,
    "keras.constraints": keras.constraints,
    "keras.dtype_policies": keras.dtype_policies,
    "keras.quantizers": keras.quantizers,
    "keras.random": keras.random,
}
_FUNCTIONS = {
    "keras.activations": keras.activations,
    "keras.losses": keras.losses,
    "keras.metrics": keras.metrics,
}
_TORCH_OPTIMIZER = re.compile(r"keras\.src\.backend\.torch\.optimizers\.torch_\w+")
_NOT_MODELLING = ("deserialize", "get", "serialize")

REFUSED = {
    "Lambda": "it holds Python code",
    "TorchModuleWrapper": "it holds a pickle",
    "TFSMLayer": "it opens a SavedModel from a path",
    "JaxLayer": "it holds Python functions",
    "FlaxLayer": "it holds Python functions",
    "GPTQConfig": "it names data sets",
    "AWQConfig": "it names data sets",
}
"""Keras's own classes that a file may not name, and why."""

LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization")
"""Keras's own layers that keep a vocabulary, in their configuration or in the archive's assets."""


class NotInTable(ValueError):
    """A name that no file may give."""


class Table:
    """What one file may name.

    Args:
        custom_objects: mapping of str to class or function, or None. What the caller adds.
    """

    def __init__(self, custom_objects: Mapping[str, Any] | None = None):
        self._custom = dict(custom_objects or {})
        for name, value in self._custom.items():
            _check_custom(name, value)
        self.used: dict[str, Any] = dict(self._custom)
        """What Keras is to find under which name, while it reads the configuration."""

    def class_of(self, module: Any, name: str, registered: Any) -> tuple[type, dict[str, Any]]:
        """The class that a configuration names, and how Keras is to be told so."""
        if name in REFUSED or str(registered).rpartition(">")[2] in REFUSED:
            refused = name if name in REFUSED else str(registered).rpartition(">")[2]
            raise NotInTable(f"it names `{refused}`, which is never loaded: {REFUSED[refused]}")
        if isinstance(module, str) and _TORCH_OPTIMIZER.fullmatch(module):
            # Under torch, Keras's optimizers call themselves by a class that only torch has.
            module = "keras.optimizers"
        found = stock_class(module, name)
        if found is not None:
            if registered not in (None, name):
                raise NotInTable(
                    f"it gives Keras's own `{module}.{name}` the registered name "
                    f"{shown(registered)}"
                )
            return found, {"module": module, "class_name": name, "registered_name": None}
        key = registered if isinstance(registered, str) and registered else name
        found = self._custom_class(key, name)
        self.used[key] = found
        return found, {"module": found.__module__, "class_name": name, "registered_name": key}

    def function_of(self, module: Any, name: Any) -> dict[str, Any]:
        """How Keras is to be told of the function that a configuration names."""
        head = {"class_name": "function", "config": name, "registered_name": name}
        if isinstance(name, str) and name not in _NOT_MODELLING and not name.startswith("_"):
            if inspect.isfunction(self._custom.get(name)):
                return {"module": self._custom[name].__module__, **head}
            for known, functions in _FUNCTIONS.items():
                found = getattr(functions, name, None)
                if module in (known, "builtins") and inspect.isfunction(found):
                    return {"module": known, **head}
        raise NotInTable(
            f"it names the function `{escaped(str(module))}.{escaped(str(name))}`, expected an "
            "activation, loss or metric of Keras, or one in `custom_objects`"
        )

    def check_text(self, text: str) -> None:
        """Refuses a string that Keras would take for an object that the caller did not pass."""
        found = keras.saving.get_registered_object(text)
        if found is not None and self._custom.get(text) is not found:
            raise NotInTable(
                f"the text {shown(text)} is the name of a registered object; pass it in "
                "`custom_objects` if the file is to use it"
            )

    def _custom_class(self, key: str, name: str) -> type:
        known = keras.saving.get_registered_object(key)
        passed = self._custom.get(key, self._custom.get(name))
        if passed is not None:
            if known is not None and known is not passed:
                raise NotInTable(
                    f"it names {shown(key)}, which Keras knows as another class than the one in "
                    "`custom_objects`"
                )
            if not inspect.isclass(passed) or not hasattr(passed, "from_config"):
                raise NotInTable(
                    f"it uses {shown(key)} as a class, but `custom_objects` has {passed!r}"
                )
            return passed
        found = registered_class(key)
        if found is None:
            raise NotInTable(
                f"it names {shown(key)}, which is neither Keras's own, nor in an Ember Keras "
                "registry, nor in `custom_objects`"
            )
        if known is not found or found.__name__ != name:
            raise NotInTable(
                f"it names {shown(key)} with the class name {shown(name)}, which do not belong "
                "together"
            )
        return found


class AnyTable(Table):
    """What may be saved with a model: what some `custom_objects` would let in, too."""

    def __init__(self, model: keras.Model):
        super().__init__()
        self._known = {type(layer).__name__: type(layer) for layer in [model, *model.layers]}

    def check_text(self, text: str) -> None:
        """Lets any text pass."""

    def function_of(self, module: Any, name: Any) -> dict[str, Any]:
        """Lets any function pass."""
        return {"module": module, "class_name": "function", "config": name}

    def _custom_class(self, key: str, name: str) -> type:
        found = keras.saving.get_registered_object(key) or self._known.get(name)
        return found if inspect.isclass(found) else object


def _check_custom(name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"`custom_objects` received the key {name!r}, expected names (str).")
    if not callable(value):
        raise TypeError(
            f"`custom_objects` received {value!r} for {name!r}, expected a class or function."
        )
    plain = name.rpartition(">")[2]
    stock = any(stock_class(module, plain) for module in _NAMESPACES) or plain in REFUSED
    if (stock and ">" not in name) or name.startswith("ember_keras>"):
        raise ValueError(
            f"`custom_objects` received {name!r}, which would shadow a built-in class of that "
            "name. Give your class another name."
        )


def registered_class(key: str) -> type | None:
    """The class that our registries save as `key`, such as `ember_keras>Hyena`, or None."""
    if ">" not in key:
        return None
    for kind in registry.KINDS:
        for name in registry.table(kind).names():
            found = registry.table(kind).get(name)
            if keras.saving.get_registered_name(found) == key:
                return found
    found = keras.saving.get_registered_object(key)
    if inspect.isclass(found) and found.__module__.partition(".")[0] == "ember_keras":
        return found
    return None


def stock_class(module: Any, name: Any) -> type | None:
    """Keras's own class of that public name, where a file may name it; None otherwise."""
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if name in REFUSED or name.startswith("_"):
        return None
    if module in _NAMESPACES:
        found = vars(_NAMESPACES[module]).get(name)
        if inspect.isclass(found) and issubclass(found, _BASES) and found.__name__ not in REFUSED:
            return found
        return None
    # A functional model names itself and its `keras.ops` by Keras's internal modules.
    if module == "keras.src.models.functional" or module.startswith("keras.src.ops."):
        for found in _descendants(keras.Operation):
            if (found.__module__, found.__name__) == (module, name):
                return found
    return None


def _descendants(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _descendants(child)
