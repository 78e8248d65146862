"""The checks of a weights file as HDF5, before any of its data is read."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import h5py

from ember_keras.models.saving.errors import BROKEN_FILE, DAMAGED, LoadError

MAX_OBJECTS = 1_000_000
MAX_DEPTH = 100
_ATTRIBUTES = {"name", "dtype"}
_DISTRUST = "Keras never writes such a file: do not trust it."


class Stored(NamedTuple):
    """One array of a weights file: its shape, its kind (float, int or bool), its size in bytes."""

    shape: tuple[int, ...]
    kind: str
    nbytes: int


def stored_arrays(file: str | os.PathLike[str], path: object) -> dict[str, Stored]:
    """Walks a weights file piece by piece, and says what arrays it declares.

    Every name must be a plain link to a group or to an array that lies whole, uncompressed and once
    in the file itself: no soft, external or virtual link, no external storage, no filter.

    Args:
        file: str or path-like, a private copy of the file, which nobody else can change.
        path: str or path-like, the file that the user gave, for errors.

    Returns:
        dict from the name of an array, as `layers/dense/vars/0`, to what is stored.
    """
    with damage(path):
        with h5py.File(file, "r") as opened:
            found = _Walk(path).run(opened)
        total = sum(array.nbytes for array in found.values())
        size = os.stat(file).st_size
    if total > size:
        raise LoadError(
            path, f"it declares {total:,} bytes of weights in a file of {size:,} bytes.", _DISTRUST
        )
    return found


@contextlib.contextmanager
def damage(path: object) -> Iterator[None]:
    """Turns what h5py raises into a `LoadError`."""
    try:
        yield
    except LoadError:
        raise
    except BROKEN_FILE as error:
        raise LoadError(path, f"its weights cannot be read ({error}).", DAMAGED) from error


class _Walk:
    def __init__(self, path: object):
        self.path = path
        self.arrays: dict[str, Stored] = {}
        self._seen: set[int] = set()

    def run(self, file: h5py.File) -> dict[str, Stored]:
        self._group(file, "", 0)
        return self.arrays

    def _refuse(self, name: str, problem: str) -> None:
        raise LoadError(self.path, f"in its weights, `{name or '/'}` {problem}.", _DISTRUST)

    def _once(self, item: h5py.Group | h5py.Dataset, name: str) -> None:
        info = h5py.h5o.get_info(item.id)
        if info.addr in self._seen or info.rc > 1:
            self._refuse(name, "is a second name of another part")
        self._seen.add(info.addr)
        if len(self._seen) > MAX_OBJECTS:
            self._refuse(name, f"is one of more than {MAX_OBJECTS:,} parts")

    def _group(self, group: h5py.Group, name: str, depth: int) -> None:
        self._once(group, name)
        if depth > MAX_DEPTH:
            self._refuse(name, f"lies deeper than {MAX_DEPTH} levels")
        self._attributes(group, name)
        for key in group:
            inner = f"{name}/{key}" if name else key
            if "/" in key or key in ("", ".", "..") or not key.isprintable() or len(key) > 255:
                self._refuse(inner, "has a name with separators")
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self._refuse(inner, f"is a {type(link).__name__}, expected the weights themselves")
            kind = group.get(key, getclass=True)
            if kind is h5py.Group:
                self._group(group[key], inner, depth + 1)
            elif kind is h5py.Dataset:
                self._dataset(group[key], inner)
            else:
                self._refuse(inner, "is neither a group nor an array")

    def _attributes(self, item: h5py.Group | h5py.Dataset, name: str) -> None:
        for key in item.attrs:
            attribute = item.attrs.get_id(key)
            if (
                key not in _ATTRIBUTES
                or attribute.shape != ()
                or attribute.get_type().get_class() != h5py.h5t.STRING
            ):
                self._refuse(
                    name, f"has the attribute {key!r}, expected only a name and a data type"
                )

    def _dataset(self, dataset: h5py.Dataset, name: str) -> None:
        self._once(dataset, name)
        self._attributes(dataset, name)
        plan = dataset.id.get_create_plist()
        if plan.get_external_count():
            self._refuse(name, "keeps its data in another file")
        if plan.get_layout() == h5py.h5d.VIRTUAL or dataset.is_virtual:
            self._refuse(name, "is put together out of other arrays")
        if plan.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or plan.get_nfilters():
            self._refuse(name, "is stored in pieces or compressed, expected plain storage")
        if dataset.id.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            self._refuse(name, "is an empty array")
        kind = self._kind(dataset, name)
        nbytes = math.prod(dataset.shape) * dataset.id.get_type().get_size()
        if nbytes != dataset.id.get_storage_size():
            self._refuse(
                name,
                f"declares {nbytes:,} bytes, but {dataset.id.get_storage_size():,} are stored",
            )
        self.arrays[name] = Stored(tuple(dataset.shape), kind, nbytes)

    def _kind(self, dataset: h5py.Dataset, name: str) -> str:
        stored = dataset.id.get_type()
        size = stored.get_size()
        if stored.get_class() == h5py.h5t.FLOAT and size in (1, 2, 4, 8):
            return "float"
        if stored.get_class() == h5py.h5t.INTEGER and size in (1, 2, 4, 8):
            return "int"
        if stored.get_class() == h5py.h5t.ENUM and dataset.dtype == bool:
            return "bool"
        # Keras keeps bfloat16 as opaque pairs of bytes, and says so in an attribute.
        if stored.get_class() == h5py.h5t.OPAQUE and size == 2 and "dtype" in dataset.attrs:
            if dataset.attrs["dtype"] == "bfloat16":
                return "float"
        self._refuse(name, "holds something other than numbers")
        raise AssertionError("unreachable")
