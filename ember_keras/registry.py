"""The tables of everything that can be named in a configuration.

One `Registry` class, one instance a kind. Names are looked up here and nowhere else: nothing in a
file is ever imported, evaluated, opened or fetched because a configuration says so.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import keras

from ember_keras.config.aliases import ALIASES
from ember_keras.config.components import nearest

_PACKAGE = __name__.partition(".")[0]


class Registry:
    """A closed table from names to classes, for one kind of component.

    Args:
        kind: str. The plural word for what the table holds, e.g. `"sequence_mixers"`.

    Example:

    ```python
    import ember_keras as ek

    mixer = ek.registry.sequence_mixers.build("hyena", order=3)
    print(ek.registry.sequence_mixers.names())
    ```
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._classes: dict[str, type] = {}
        self._experimental: set[str] = set()
        self._provider: str | None = None

    def provided_by(self, module: str) -> None:
        """Names the module of this package whose import fills the table, on first use."""
        self._provider = module

    def _load(self) -> None:
        if self._provider is not None:
            module, self._provider = self._provider, None
            importlib.import_module(module)

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self._classes)

    def aliases(self) -> dict[str, str]:
        """The names of MAD-Lab that stand for names of this table: alias -> name."""
        self._load()
        return {
            alias: entry.target
            for alias, entry in sorted(ALIASES.items())
            if entry.kind == self.kind and entry.target in self._classes
        }

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._classes

    def get(self, name: str) -> type:
        """The class behind `name`; a `ValueError` names the nearest one where there is none."""
        self._load()
        if not isinstance(name, str):
            raise TypeError(
                f"A name in `registry.{self.kind}` is a string; received {name!r} "
                f"({type(name).__name__}). Use one of: {', '.join(self.names())}."
            )
        if name not in self._classes:
            raise ValueError(
                f"Received {name!r}, expected a name in `registry.{self.kind}`: "
                f"{', '.join(self.names()) or '(none)'}.{nearest(name, self._classes)}"
            )
        return self._classes[name]

    def is_experimental(self, name: str) -> bool:
        """Whether `name` still lacks a reference, gradients, a backend or a source."""
        self.get(name)
        return name in self._experimental

    def describe(self, name: str) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.get(name)) or "").partition("\n")[0]

    def register(self, name: str, *, experimental: bool = False):
        """Decorator: enters a class under `name`, and registers it for Keras saving.

        A name is registered once; shadowing an existing one, a built-in among them, is refused.
        Classes of this package are saved as `ember_keras>ClassName`, others under their own
        top-level package.
        """

        def decorate(cls: type) -> type:
            self._load()
            if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(
                    f"Received {name!r} as a name for `registry.{self.kind}`; expected letters, "
                    "digits, '_' and '-' only."
                )
            if not inspect.isclass(cls):
                raise TypeError(f"`register({name!r})` decorates a class; received {cls!r}.")
            if name in self._classes:
                raise ValueError(
                    f"{name!r} is already registered in `registry.{self.kind}`, as "
                    f"{self._classes[name].__module__}.{self._classes[name].__qualname__}. "
                    "A name is registered once: choose another."
                )
            if hasattr(cls, "get_config"):
                _register_for_saving(cls)
            self._classes[name] = cls
            if experimental:
                self._experimental.add(name)
            return cls

        return decorate

    def name_of(self, component: object) -> str | None:
        """The name that `component`'s own class is registered under, or None."""
        self._load()
        cls = type(component)
        return next((name for name, known in self._classes.items() if known is cls), None)

    def build(self, name_or_config: str | dict[str, Any], **overrides: Any) -> Any:
        """Builds a component.

        Args:
            name_or_config: str or dict. A registered name, or a configuration
                `{"type": name, ...}` whose other keys are the class's own arguments.
            **overrides: arguments that replace those of the configuration. They may also be the
                base arguments of a Keras layer: `name`, `dtype`, `trainable`.

        Returns:
            A new instance. Unknown keys, names and types raise `ValueError` or `TypeError`
            with the key, its path and the nearest valid name.
        """
        return build(name_or_config, (self.kind,), **overrides)


def _register_for_saving(cls: type) -> None:
    package = cls.__module__.partition(".")[0]
    key = f"{package}>{cls.__name__}"
    known = keras.saving.get_registered_object(key)
    if known is cls:
        return
    if known is not None:
        raise ValueError(
            f"Keras already saves {known.__module__}.{known.__qualname__} as {key!r}. "
            "Rename the class."
        )
    if keras.saving.get_registered_name(cls) != cls.__name__ or package == "keras":
        return  # Registered by its author, or Keras's own: it has a saved name already.
    keras.saving.register_keras_serializable(package=package)(cls)


KINDS = (
    "sequence_mixers",
    "channel_mixers",
    "norms",
    "filters",
    "feature_maps",
    "wirings",
    "experts",
    "routers",
    "combiners",
    "blocks",
    "models",
    "pipelines",
    "tasks",
)
_RUN_CODE = ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "__lambda__")
_DEFAULTS: dict[type, dict[str, Any]] = {}
_TABLES = {kind: Registry(kind) for kind in KINDS}


def __getattr__(name: str) -> Registry:
    if name in _TABLES:
        return _TABLES[name]
    raise AttributeError(
        f"There is no registry {name!r}; the kinds are {', '.join(KINDS)}.{nearest(name, KINDS)}"
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *KINDS])


def table(kind: str) -> Registry:
    """The registry of one kind, by its name."""
    if kind not in _TABLES:
        raise ValueError(
            f"Received {kind!r}, expected one of {', '.join(KINDS)}.{nearest(kind, KINDS)}"
        )
    return _TABLES[kind]


def build(name_or_config: Any, kinds: tuple[str, ...], **overrides: Any) -> Any:
    """Builds a component whose name may stand in any of `kinds`; see `Registry.build`."""
    config = check(name_or_config, kinds, **overrides)
    cls = find(config.pop("type"), kinds)
    return cls(**config)


def check(name_or_config: Any, kinds: tuple[str, ...], **overrides: Any) -> dict[str, Any]:
    """The checked configuration of a component, with `type` in our names; it builds nothing."""
    from ember_keras.config.validation import validate_component

    return validate_component(name_or_config, kinds, table, overrides=overrides)


def find(name: str, kinds: tuple[str, ...]) -> type:
    """The class behind `name` in the first of `kinds` that has it."""
    for kind in kinds:
        if name in table(kind):
            return table(kind).get(name)
    names = sorted({known for kind in kinds for known in table(kind).names()})
    raise ValueError(
        f"Received {name!r}, expected a name in {' or '.join(f'registry.{k}' for k in kinds)}: "
        f"{', '.join(names)}.{nearest(name, names)}"
    )


def to_config(component: Any, kinds: tuple[str, ...] = KINDS) -> dict[str, Any] | str:
    """The shortest configuration that builds `component` again: its name, and what is not default.

    Returns:
        The name alone where every argument has its default value, else
        `{"type": name, argument: value, ...}`, of plain data.

    Example:

    ```python
    import ember_keras as ek

    mixer = ek.registry.sequence_mixers.build("attention", num_heads=2)
    print(ek.registry.to_config(mixer))  # {'type': 'attention', 'num_heads': 2}
    ```
    """
    name = next(filter(None, (table(kind).name_of(component) for kind in kinds)), None)
    if name is None:
        raise ValueError(
            f"{type(component).__module__}.{type(component).__qualname__} is not registered in "
            f"{' or '.join(f'registry.{kind}' for kind in kinds)}; register its class first, with "
            "`@ember_keras.registry.<kind>.register(name)`."
        )
    config = component.get_config()
    defaults = _defaults(type(component))
    arguments = {}
    for parameter in own_parameters(type(component)):
        value = plain(config.get(parameter.name))
        known = (plain(parameter.default), defaults.get(parameter.name, plain(parameter.default)))
        if parameter.name in config and value not in known:
            arguments[parameter.name] = value
    return {"type": name, **arguments} if arguments else name


def _defaults(cls: type) -> dict[str, Any]:
    """The configuration of a class of Keras with no arguments: it writes its defaults in full."""
    if cls not in _DEFAULTS:
        is_keras = cls.__module__.partition(".")[0] == "keras"
        _DEFAULTS[cls] = plain(cls().get_config()) if is_keras else {}
    return _DEFAULTS[cls]


def plain(data: Any) -> Any:
    """The same nest in plain dicts and lists, whatever kinds of them it was made of."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return data


def own_parameters(cls: type) -> list[inspect.Parameter]:
    """The arguments that a class's `__init__` names itself, in order."""
    return [
        parameter
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def build_part(part: Any, kinds: tuple[str, ...], dtype: Any, name: str) -> Any:
    """Builds a component that another one holds: from a name or configuration, or as it is given.

    Args:
        part: str, dict, or a Keras layer, which is taken as it is.
        kinds: tuple of str, the registry kinds where the name may stand.
        dtype: the dtype policy of the component that holds it.
        name: str, its name in the paths of its variables, unless it is built already.
    """
    if isinstance(part, keras.layers.Layer):
        return part
    if isinstance(part, dict) and "class_name" in part and "type" not in part:
        # What `part_config` wrote of a layer outside the registry; never from a configuration file.
        _require_safe(part)
        layer = keras.saving.deserialize_keras_object(part, safe_mode=True)
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                f"Received the configuration of a {type(layer).__name__}, expected that of a Keras "
                f"layer, or a name out of {' or '.join(kinds)}."
            )
        return layer
    return build(part, kinds, dtype=dtype, name=name)


def _require_safe(part: Any) -> None:
    """Refuses layers that run code out of their configuration, whatever Keras may allow."""
    if isinstance(part, dict):
        if part.get("class_name") in _RUN_CODE:
            raise ValueError(
                f"Received a layer configuration with a {part['class_name']!r}, which runs code "
                "out of its configuration and is never built from one. Pass the layer itself."
            )
        part = list(part.values())
    if isinstance(part, list | tuple):
        for value in part:
            _require_safe(value)


def part_config(part: Any, kinds: tuple[str, ...]) -> Any:
    """What `build_part` builds `part` from again, for the `get_config` of what holds it."""
    if any(table(kind).name_of(part) for kind in kinds):
        return to_config(part, kinds)
    return keras.saving.serialize_keras_object(part)
