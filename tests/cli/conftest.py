"""A small run of each kind, with weights that were never trained, so that numpy has them too."""

import json

import numpy as np
import pytest
from cli.command import in_process

import ember_keras as ek
from ember_keras.config import to_yaml
from ember_keras.pipelines.training import build_model

from keras.utils import set_random_seed  # isort: skip - under mlx after ember_keras

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
RUNS = {
    "text": {
        "task": {"type": "byte_text", "length": 32, "stride": 32, "validation": 0.0},
        "model": {"type": "causal_lm", "width": 8, "blocks": ["hyena", "attention"]},
    },
    "series": {
        "task": {"type": "time_series"},
        "model": {"type": "sequence_classifier", "width": 8, "blocks": ["attention"]},
    },
}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of small files."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    x, y = rng.normal(size=(12, 10, 2)), np.array(["left", "right"] * 6)
    np.savez(folder / "series.npz", x=x, y=y, x_test=x[:5], y_test=y[:5])
    np.save(folder / "series.npy", x[:3])
    broken = x.copy()
    broken[3, 4, 1] = np.nan
    np.savez(folder / "nan.npz", x=broken, y=y, x_test=x, y_test=y)
    np.savez(folder / "no_steps.npz", x=x[:, :0], y=y, x_test=x, y_test=y)
    rows = ["a,b,c,y", "0.1,0.2,0.3,left", "0.3,0.2,0.1,right"]
    (folder / "series.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "empty.txt").touch()
    return folder


@pytest.fixture(scope="session")
def runs(data, tmp_path_factory):
    """Run folders `text` and `series`, as `train` leaves them."""
    output = tmp_path_factory.mktemp("runs")
    for name, suffix in (("text", "txt"), ("series", "npz")):
        config = json.loads(json.dumps(RUNS[name]))
        config["task"]["files"] = str(data / f"{name}.{suffix}")
        set_random_seed(0)
        task = ek.registry.tasks.build(config["task"])
        loaded = task.load(0)
        folder = output / name
        folder.mkdir()
        ek.models.saving.save_model(
            build_model(config["model"], task, loaded), folder / "model.keras"
        )
        (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        (folder / "data.json").write_text(json.dumps(loaded.description), encoding="utf-8")
    return output


@pytest.fixture
def command(capfd, tmp_path, monkeypatch):
    """Runs the command in an empty folder; gives its status, output and errors."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: in_process(capfd, *arguments)


@pytest.fixture
def experiment(tmp_path, data):
    """Writes a small experiment, with changes, and gives its path."""

    def write(name="small", **changes):
        config = {
            "task": {**RUNS["text"]["task"], "files": str(data / "text.txt")},
            "model": RUNS["text"]["model"],
            "training": {"epochs": 2, "steps_per_epoch": 2, "batch_size": 4},
            "sample": {"length": 4},
            **changes,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(to_yaml(config), encoding="utf-8")
        return path

    return write
