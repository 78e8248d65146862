"""YAML and JSON text to plain data and back; nothing in a file is evaluated or fetched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from ember_keras.config.shown import shown
from ember_keras.config.validation import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """YAML with one reading a file: no aliases, no key twice, and `1e-3` is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not read; write the value out", mark
            )
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(
                None, None, f"nested deeper than {MAX_DEPTH} levels", mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {shown(key)} is not a string; quote it",
                    key_node.start_mark,
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Block style, in the given order, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def from_yaml(text: str, source: str = "<text>") -> Any:
    """Plain data from YAML text; JSON is YAML too.

    Args:
        text: str, at most 1 MiB.
        source: str, the name of the text in errors.

    Raises:
        ConfigError: the text is no YAML, is too large or too deep, or has a key twice.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise ConfigError("", f"{source}: a configuration of over {MAX_BYTES} bytes is not read.")
    try:
        return yaml.load(text, _Loader)  # noqa: S506, a SafeLoader with fewer features
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError("", f"{source}:{at}: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError) as error:  # A ValueError: a number Python cannot read.
        raise ConfigError("", f"{source}: not readable as YAML: {error}.") from None


def to_yaml(data: Any) -> str:
    """YAML text of plain data, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def to_json(data: Any) -> str:
    """JSON text of plain data; a number that JSON cannot hold is refused."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def read_config(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file.

    Raises:
        ConfigError: the file is missing, empty, unreadable, or holds no mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError("", f"{path}: a configuration of over {MAX_BYTES} bytes is not read.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("", f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise ConfigError("", f"{path}: is a folder; expected a YAML or JSON file.") from None
    except UnicodeDecodeError:
        raise ConfigError("", f"{path}: is not UTF-8 text; expected YAML or JSON.") from None
    except OSError as error:
        raise ConfigError("", f"{path}: cannot be read: {error.strerror}.") from None
    data = from_yaml(text, str(path))
    if data is None:
        raise ConfigError("", f"{path}: is empty; expected a configuration.")
    if not isinstance(data, dict):
        raise ConfigError(
            "", f"{path}: holds a {type(data).__name__}; expected a mapping of keys to values."
        )
    return data


def set_value(config: dict[str, Any], assignment: str) -> None:
    """Applies one `a.b[2].c=value` to `config`; the value is read as YAML.

    A name that stands where a mapping is needed becomes one: `model.blocks[0].order=3` turns the
    entry `hyena` into `{type: hyena, order: 3}`.
    """
    target, separator, text = assignment.partition("=")
    keys = re.findall(r"[^.\[\]]+|\[\d+\]", target)
    if (
        not separator
        or not keys
        or "".join(re.split(r"[.\[\]]", target)) != "".join(key.strip("[]") for key in keys)
    ):
        raise ConfigError("", f"--set received {shown(assignment)}; expected key.key=value.")
    value = from_yaml(text, f"--set {target}") if text else ""
    node: Any = config
    path = ""
    for i, key in enumerate(keys):
        last = i == len(keys) - 1
        if key.startswith("["):
            at = int(key[1:-1])
            path += key
            if not isinstance(node, list) or at >= len(node):
                size = f"a list of {len(node)}" if isinstance(node, list) else "no list"
                raise ConfigError(path, f"--set {assignment}: there is {size} here.")
            index: Any = at
        else:
            path = f"{path}.{key}" if path else key
            if not isinstance(node, dict):
                raise ConfigError(path, f"--set {assignment}: there is no mapping here.")
            index = key
        if last:
            node[index] = value
            return
        if isinstance(node, dict) and index not in node:
            node[index] = {}
        if isinstance(node[index], str):
            node[index] = {"type": node[index]}
        node = node[index]
