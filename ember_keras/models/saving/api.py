"""Saving and loading of models and of weights, safe by default."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from ember_keras.models.saving import files, hdf5
from ember_keras.models.saving.archive import WEIGHTS, Archive
from ember_keras.models.saving.building import build_model
from ember_keras.models.saving.configuration import check_model_config
from ember_keras.models.saving.errors import LoadError, broken_config
from ember_keras.models.saving.expected import compare, saved_arrays, saved_parts, write_arrays
from ember_keras.models.saving.objects import AnyTable, Table
from ember_keras.models.saving.writing import write_whole

MODEL, WEIGHTS_ONLY = ".keras", ".weights.h5"
PathLike = str | os.PathLike[str]


def save_model(model: keras.Model, path: PathLike, *, overwrite: bool = True) -> None:
    """Saves a model: its configuration, weights and, where it is compiled, its optimizer's state.

    The file is Keras's own `.keras` format, which every backend reads. It is written under another
    name in the same folder, read back, and renamed when it is complete: a full disk or Ctrl-C
    leaves the file that was there as it was.

    Args:
        model: keras.Model, built.
        path: str or path-like. The file, whose name ends in `.keras`.
        overwrite: bool. Whether a file that is there already may be replaced.

    Example:

    ```python
    import ember_keras as ek
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    ek.save_model(model, "model.keras")
    again = ek.load_model("model.keras")
    ```
    """
    _require_model(model)

    def write(new: Path) -> None:
        keras.saving.save_model(model, new)
        with (
            _private() as folder,
            files.open_file(new, MODEL, files.ZIP, new.stat().st_size) as file,
        ):
            with Archive(file, path, new.stat().st_size) as archive:
                _require_loadable(model, archive.config(), path)
                archive.extract(WEIGHTS, folder / WEIGHTS)
            stored = hdf5.stored_arrays(folder / WEIGHTS, path)
            compare(saved_arrays(model), stored, path)

    _write(path, MODEL, overwrite, write)


def save_weights(model: keras.Model, path: PathLike, *, overwrite: bool = True) -> None:
    """Saves the weights of a model and, where it is compiled, its optimizer's state.

    Written as `save_model` writes. A checksum after the end of the HDF5 data, which other readers
    do not see, lets `load_weights` tell a file that was damaged.

    Args:
        model: keras.Model, built.
        path: str or path-like. The file, whose name ends in `.weights.h5`.
        overwrite: bool. Whether a file that is there already may be replaced.

    Example:

    ```python
    import ember_keras as ek
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    ek.models.save_weights(model, "model.weights.h5")
    ek.models.load_weights(model, "model.weights.h5")
    ```
    """
    _require_model(model)

    def write(new: Path) -> None:
        files.write_sealed(new, write_arrays(model))
        compare(saved_arrays(model), hdf5.stored_arrays(new, path), path)

    _write(path, WEIGHTS_ONLY, overwrite, write)


def load_model(
    path: PathLike,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,  # noqa: A002 - Keras's own name for it
    *,
    max_bytes: int = files.DEFAULT_MAX_BYTES,
) -> keras.Model:
    """Loads a model from a `.keras` file, which need not be trusted.

    The file is data: it may name what Keras and the Ember Keras registries define and what
    `custom_objects` holds, and nothing else. No code in it runs, no path or address in it is
    opened, and it can take no more memory than its own size warrants. No option turns this off.

    Args:
        path: str or path-like. The file.
        custom_objects: dict of str to class or function, or None. Your own classes that the file
            uses, by class name, where they are in none of the registries.
        compile: bool. Whether to compile the model as it was when saved, with its optimizer.
        max_bytes: int. The most bytes that the file may have.

    Returns:
        The model. `LoadError` (a `ValueError`) where the file is damaged or not allowed,
        `FileNotFoundError` where there is none.

    Example:

    ```python
    import ember_keras as ek
    import keras

    ek.save_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), "model.keras")
    model = ek.load_model("model.keras")
    ```
    """
    table = Table(custom_objects)
    with _private() as folder:
        with (
            files.open_file(path, MODEL, files.ZIP, max_bytes) as file,
            Archive(file, path, max_bytes) as archive,
        ):
            archive.metadata()
            config, keeps_assets = check_model_config(archive.config(), path, table)
            assets = archive.assets()
            if assets and not keeps_assets:
                raise LoadError(
                    path,
                    f"it has the member {assets[0]!r}, but no layer in it keeps such files.",
                    "Keras never writes such a file: do not trust it.",
                )
            for name in (WEIGHTS, *assets):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                archive.extract(name, folder / name)
        stored = hdf5.stored_arrays(folder / WEIGHTS, path)
        model = build_model(config, table, stored, path, compile)
        _read_weights(model, folder / WEIGHTS, stored, path)
        if assets:
            _read_assets(model, folder / "assets", path)
    return model


def load_weights(
    model: keras.Model,
    path: PathLike,
    *,
    optimizer: bool = True,
    max_bytes: int = files.DEFAULT_MAX_BYTES,
) -> None:
    """Loads weights into a built model, from a `.weights.h5` or a `.keras` file.

    Every array must be in the file with the shape that the model has; where one is not, `LoadError`
    says which, and the model is left as it was.

    Args:
        model: keras.Model, built.
        path: str or path-like. The file.
        optimizer: bool. Whether a compiled model's optimizer takes its state from the file too,
            where the file has it.
        max_bytes: int. The most bytes that the file may have.

    Example:

    ```python
    import ember_keras as ek
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    ek.save_model(model, "model.keras")
    ek.models.load_weights(model, "model.keras")
    ```
    """
    _require_model(model)
    with _private() as folder:
        if os.fspath(path).endswith(MODEL):
            with (
                files.open_file(path, MODEL, files.ZIP, max_bytes) as file,
                Archive(file, path, max_bytes) as archive,
            ):
                archive.metadata()
                archive.extract(WEIGHTS, folder / WEIGHTS)
        else:
            with files.open_file(path, WEIGHTS_ONLY, files.HDF5, max_bytes) as file:
                files.copy_checked(file, folder / WEIGHTS, path)
        stored = hdf5.stored_arrays(folder / WEIGHTS, path)
        _read_weights(model, folder / WEIGHTS, stored, path, optimizer)


def _read_weights(
    model: keras.Model,
    file: Path,
    stored: dict[str, hdf5.Stored],
    path: PathLike,
    with_optimizer: bool = True,
) -> None:
    """Reads a checked weights file into a model that has just the places for it."""
    skip: tuple[Any, ...] = ()
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        count = sum(name.startswith("optimizer/vars/") for name in stored)
        if not with_optimizer or not count:
            skip = (optimizer,)
        elif count > len(optimizer.variables) and not optimizer.built:
            optimizer.build(model.trainable_variables)
    without = optimizer is None or bool(skip)
    compare(
        saved_arrays(model, skip),
        stored,
        path,
        extra=r"(^|/)optimizer/" if without else "./optimizer/",
    )
    try:
        model.load_weights(file, objects_to_skip=list(skip) or None)
    except broken_config() as error:
        raise LoadError(
            path, f"Keras cannot read its weights ({error}).", "Fetch or save it again."
        ) from error


def _read_assets(model: keras.Model, folder: Path, path: PathLike) -> None:
    for place, part in saved_parts(model):
        if hasattr(part, "load_assets") and (folder / place).is_dir():
            try:
                part.load_assets(str(folder / place))
            except broken_config() as error:
                raise LoadError(
                    path, f"the files of `{place}` cannot be read ({error}).", "Save it again."
                ) from error


def _require_loadable(model: keras.Model, config: Any, path: PathLike) -> None:
    """Refuses to save what `load_model` would refuse, whatever `custom_objects` it is given."""
    try:
        check_model_config(config, path, AnyTable(model))
    except LoadError as error:
        raise ValueError(
            f"Cannot save to {os.fspath(path)}, since it could never be loaded: {error.problem} "
            "The file that was there is unchanged. Replace that part of the model."
        ) from None


def _write(path: PathLike, suffix: str, overwrite: bool, write: Any) -> None:
    try:
        write_whole(path, suffix, overwrite, write)
    except LoadError as error:
        raise OSError(
            f"Cannot save to {os.fspath(path)}: what was written does not read back: "
            f"{error.problem} Nothing was replaced. Check the disk, and report it if that is well."
        ) from error


def _require_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Received {model!r} ({type(model).__name__}), expected a keras.Model.")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, expected one that has its weights. Call it on "
            "some data, or `build` it with the shape of its input, first."
        )


class _private(tempfile.TemporaryDirectory):  # noqa: N801 - used as a function
    """A fresh folder that only this user can enter, removed at the end."""

    def __init__(self) -> None:
        super().__init__(prefix="ember-keras-")

    def __enter__(self) -> Path:
        return Path(super().__enter__())
