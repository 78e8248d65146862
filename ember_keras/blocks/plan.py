"""Lists of blocks with repeats in them, before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from ember_keras import registry

BLOCK_KINDS = ("blocks", "sequence_mixers", "channel_mixers")
DEFAULT_BLOCKS: Any = ("attention", "gated_mlp")
MAX_BLOCKS = 10_000
"""More blocks than any machine builds; a configuration that asks for them is a mistake or worse."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A list of blocks that stands some times, one after another.

    Args:
        entries: list of names, configurations, layers, and plans in place of `repeat`.
        times: int.
    """

    entries: list[Any]
    times: int

    def __len__(self) -> int:
        parts = (len(e) if isinstance(e, Plan) else 1 for e in self.entries)
        return self.times * sum(parts)

    def leaves(self) -> list[Any]:
        """Every block in order, without the repeats."""
        once = [e.leaves() if isinstance(e, Plan) else [e] for e in self.entries]
        return [leaf for leaves in once for leaf in leaves] * self.times

    def written(self, parts: Iterator[keras.layers.Layer]) -> list[Any]:
        """The entries as configurations, of the layers that were built of `leaves`."""
        found: list[Any] = []
        for entry in self.entries:
            if not isinstance(entry, Plan):
                found.append(registry.part_config(next(parts), BLOCK_KINDS))
                continue
            found.append({"type": "repeat", "times": entry.times, "blocks": entry.written(parts)})
            for _ in range(len(entry) - len(entry) // entry.times):
                next(parts)
        return found


def plan(owner: Any, blocks: Any, times: int, name: str = "repeats") -> Plan:
    """The plan of a list of blocks, refused where it is empty, too long, or repeats a layer.

    Args:
        owner: what received it, for errors.
        blocks: list of names, configurations and layers.
        times: int, how many times the list stands.
        name: str, what `owner` calls `times`.
    """
    found = _plan(owner, blocks, times, name)
    if len(found) > MAX_BLOCKS:
        raise ValueError(
            f"`{type(owner).__name__}` received {len(found)} blocks with their repeats, expected "
            f"at most {MAX_BLOCKS} blocks in all. Lower {name}."
        )
    return found


def _plan(owner: Any, blocks: Any, times: int, name: str) -> Plan:
    if not isinstance(blocks, list | tuple) or not blocks:
        raise ValueError(
            f"`{type(owner).__name__}` received blocks={blocks!r}, expected a list of at least one "
            "name or configuration."
        )
    if times < 1:
        raise ValueError(f"`{type(owner).__name__}` received {name}={times}, expected at least 1.")
    entries = [_entry(owner, block) for block in blocks]
    if times > 1 and any(
        isinstance(leaf, keras.layers.Layer) for leaf in Plan(entries, 1).leaves()
    ):
        raise ValueError(
            f"`{type(owner).__name__}` received a built layer in `blocks` and {name}={times}; a "
            f"layer stands once. Give its name or configuration, or {name}=1."
        )
    return Plan(entries, times)


def _entry(owner: Any, block: Any) -> Any:
    if block == "repeat":
        block = {"type": "repeat"}
    if not isinstance(block, dict) or block.get("type") != "repeat":
        return block
    checked = registry.check(block, ("blocks",))
    return _plan(owner, checked.get("blocks", DEFAULT_BLOCKS), checked.get("times", 1), "times")
