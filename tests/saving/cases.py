"""What the saving tests share: a small good model, its files, and ways to change them."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from ember_keras.models.saving import save_model, save_weights

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def small_model():
    """A stock model with an optimizer, built and compiled, untrained."""
    model = keras.Sequential(
        [
            keras.Input((3,), name="input"),
            keras.layers.Dense(4, activation="relu", name="first"),
            keras.layers.Dropout(0.1, name="drop"),
            keras.layers.Dense(2, name="last"),
        ],
        name="small",
    )
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@dataclasses.dataclass
class Good:
    """A model, its two files, and a batch with the model's answer."""

    model: keras.Model
    keras: Path
    weights: Path
    x: np.ndarray
    y: np.ndarray


def good_files(folder):
    model = small_model()
    x = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)
    save_model(model, folder / "good.keras")
    save_weights(model, folder / "good.weights.h5")
    y = keras.ops.convert_to_numpy(model(x))
    return Good(model, folder / "good.keras", folder / "good.weights.h5", x, y)


def members(path):
    """The members of a `.keras` file, by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path, contents, compression=zipfile.ZIP_STORED):
    """Writes a zip of `contents`: pairs of a name or ZipInfo and bytes."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items() if isinstance(contents, dict) else contents:
            archive.writestr(name, data)


def with_config(good, path, change, **more):
    """Writes the good model with its configuration changed, in place or to what is returned."""
    contents = members(good.keras)
    config = json.loads(contents[CONFIG])
    config = change(config) or config
    contents[CONFIG] = json.dumps(config).encode()
    write_zip(path, {**contents, **more})


def with_layer(good, path, layer, **more):
    """Writes the good model with one more layer at its end."""
    with_config(good, path, lambda config: config["config"]["layers"].append(layer), **more)


def with_weights(good, path, change):
    """Writes the good model with its HDF5 file changed; as `.keras` or as `.weights.h5`."""
    data = io.BytesIO(members(good.keras)[WEIGHTS])
    with h5py.File(data, "a") as file:
        change(file)
    write_weights(good, path, data.getvalue())


def write_weights(good, path, data):
    """Puts the bytes of a weights file at `path`, inside a `.keras` where that is its name."""
    if str(path).endswith(".keras"):
        write_zip(path, {**members(good.keras), WEIGHTS: data})
    else:
        Path(path).write_bytes(data)


def layer(name, config, module="keras.layers", registered=None, **more):
    """A layer as Keras writes it in a configuration."""
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": registered,
        **more,
    }
