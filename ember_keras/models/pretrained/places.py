"""Where each tensor of a checkpoint belongs in a model, and the way there and back."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ember_keras import backend, registry
from ember_keras.config.shown import shown
from ember_keras.models.pretrained.checkpoint import Checkpoint
from ember_keras.models.pretrained.families.base import Family
from ember_keras.models.pretrained.rules import Rule, Shape
from ember_keras.models.saving.errors import LoadError

SHOWN = 5
_MEND = "The configuration and the weights do not belong together: fetch both again."


@dataclasses.dataclass(frozen=True)
class Place:
    """One rule at one block: which tensors of the checkpoint are which variables."""

    rule: Rule
    block: Any
    names: list[str]
    variables: list[Any]

    def shapes(self) -> dict[str, Shape]:
        """The shapes that the tensors must have, by name."""
        shapes = self.rule.shapes(self.block, [tuple(each.shape) for each in self.variables])
        return dict(zip(self.names, shapes, strict=True))

    def tensors(self) -> list[np.ndarray]:
        """The tensors, from the values of the variables."""
        values = [np.asarray(backend.to_numpy(each)) for each in self.variables]
        return self.rule.write(self.block, values)


def places(model: Any, family: Family) -> list[Place]:
    """Every place of a built model; `ValueError` where a variable has none."""
    found = list(_places(model, family))
    known = {id(variable) for place in found for variable in place.variables}
    left = [variable.path for variable in model.weights if id(variable) not in known]
    if left:
        raise ValueError(
            f"Received a model with the variable `{left[0]}`, which a checkpoint of "
            f"{family.model_type!r} has no tensor for. Save it as a `.keras` file."
        )
    return found


def _places(model: Any, family: Family) -> Iterator[Place]:
    at = [(model, "", family.outer)]
    for i, block in enumerate(model.backbone.stack):
        kind = "sequence_mixers" if registry.sequence_mixers.name_of(block.mixer) else None
        name = registry.table(kind or "channel_mixers").name_of(block.mixer)
        prefix = family.prefix.format(i // family.blocks_a_layer)
        at.append((block, prefix, family.rules[name or ""]))
    for block, prefix, rules in at:
        for rule in rules:
            variables = [_attribute(block, path) for path in rule.variables.split()]
            if all(variable is not None for variable in variables):
                names = [prefix + name for name in rule.names(block)]
                yield Place(rule, block, names, variables)


def _attribute(block: Any, path: str) -> Any:
    """A variable by the path of attributes that a rule names, or None where there is none."""

    def step(part: Any, name: str) -> Any:
        return part[int(name)] if name.isdigit() else getattr(part, name, None)

    return functools.reduce(step, path.split("."), block)


def compare(found: list[Place], checkpoint: Checkpoint, family: Family, tied: bool) -> None:
    """Refuses a checkpoint that lacks a tensor, has one too many, or one of another shape."""
    expected = {name: shape for place in found for name, shape in place.shapes().items()}
    stored = checkpoint.tensors
    path = checkpoint.folder.path
    missing = [name for name in expected if name not in stored]
    if missing:
        raise LoadError(path, f"{_count(missing, 'tensor')} missing: {_some(missing)}.", _MEND)
    extra = [name for name in stored if name not in expected]
    extra = [name for name in extra if not re.fullmatch(family.ignored, name)]
    if tied and family.head in extra:
        extra.remove(family.head)
    if extra:
        raise LoadError(
            path,
            f"{_count(extra, 'tensor')} that this configuration has no place for: {_some(extra)}.",
            _MEND,
        )
    other = [name for name, shape in expected.items() if stored[name].shape != shape]
    if other:
        shapes = [f"{shown(name)} is {stored[name].shape}, not {expected[name]}" for name in other]
        raise LoadError(
            path, f"{_count(other, 'tensor')} of another shape: {_some(shapes, str)}.", _MEND
        )


def _count(names: list[str], what: str) -> str:
    return f"{len(names):,} {what}{'s' if len(names) > 1 else ''}"


def _some(names: list[str], form: Any = shown) -> str:
    more = len(names) - SHOWN
    return ", ".join(map(form, names[:SHOWN])) + (f" and {more:,} more" if more > 0 else "")


def fill(found: list[Place], checkpoint: Checkpoint, family: Family, tied: bool) -> None:
    """Reads the tensors some rows at a time into variables that have no values yet."""
    with checkpoint.opened():
        head, first = family.head, found[0].names[0]
        if tied and head in checkpoint.tensors and not checkpoint.equal(head, first):
            raise LoadError(
                checkpoint.folder.path,
                f"`tie_word_embeddings` is true, and {head!r} is not the embedding.",
                "Set it to false in `config.json` if the head was trained on its own.",
            )
        for place in found:
            if not place.names:
                continue
            pieces = place.rule.pieces(place.block, checkpoint, place.names)
            for variable, its in zip(place.variables, pieces, strict=True):
                backend.fill(variable, its)
