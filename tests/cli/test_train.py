"""`ember-keras train`: what it leaves in the run folder, and what it never destroys."""

import json
import resource
import subprocess

import numpy as np
import pytest
from cli.command import start
from cli.test_errors import refused

import ember_keras as ek
from ember_keras.models import saving
from ember_keras.pipelines import training

pytestmark = pytest.mark.trains
FILES = {"config.yaml", "data.json", "history.json", "metrics.json", "model.keras", "sample.txt"}


def history(folder):
    return json.loads((folder / "history.json").read_text(encoding="utf-8"))


def test_run_folder(command, experiment, tmp_path):
    done = command("train", experiment(name="first"), "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    folder = tmp_path / "runs" / "first"
    assert result["folder"] == "runs/first"
    assert {path.name for path in folder.iterdir()} - {"loss.png"} == FILES
    assert (tmp_path / "runs").joinpath("first") in (tmp_path / "runs").iterdir()
    assert len(list((tmp_path / "runs").iterdir())) == 1
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics.items() <= result.items()
    assert metrics["epoch"] == 2 and len(history(folder)["loss"]) == 2
    bits = metrics["held_out"]["bits_per_byte"]
    assert bits * np.log(2) == pytest.approx(metrics["held_out"]["cross_entropy"])
    assert set(metrics["baselines"]) == {"gzip -9", "bz2 -9", "xz -9e"}
    assert (folder / "sample.txt").read_text(encoding="utf-8").startswith("The ")

    # The saved configuration repeats the run.
    assert command("train", folder / "config.yaml", "--set", "name=again").status == 0
    again = history(tmp_path / "runs" / "again")
    assert again["loss"] == pytest.approx(history(folder)["loss"], rel=1e-5)

    # The saved model has the figures that were reported.
    done = command("evaluate", folder, "--json")
    assert json.loads(done.out)["held_out"] == pytest.approx(metrics["held_out"], rel=1e-5)

    # A run is not overwritten unasked; asked, it is.
    kept = (folder / "model.keras").read_bytes()
    refused(command("train", experiment(name="first")), "runs/first", "--overwrite")
    assert (folder / "model.keras").read_bytes() == kept
    done = command("train", experiment(name="first"), "--overwrite", "--set", "seed=1", "--quiet")
    assert done.status == 0 and done.err == ""
    assert "gzip -9" in done.out and "bits per byte" in done.out
    assert (folder / "model.keras").read_bytes() != kept


def test_a_folder_that_is_no_run_is_not_replaced(command, experiment, tmp_path):
    mine = tmp_path / "runs" / "small" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work", encoding="utf-8")
    refused(command("train", experiment(), "--overwrite"), "no run folder")
    assert mine.read_text(encoding="utf-8") == "years of work"


def test_loss_that_is_no_number(command, experiment, tmp_path):
    options = ["training.learning_rate=1.0e+30", "training.clipnorm=null", "training.optimizer=sgd"]
    sets = [part for option in options for part in ("--set", option)]
    done = command("train", experiment(), *sets, "--set", "training.steps_per_epoch=9")
    refused(done, "`loss` was", "Lower the learning rate", "nothing is left behind", status=1)
    assert not (tmp_path / "runs").exists()


def test_full_disk(command, experiment, tmp_path, monkeypatch):
    assert command("train", experiment()).status == 0
    folder = tmp_path / "runs" / "small"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def save_on_full_disk(model, path):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            saving.save_model(model, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(training, "save_model", save_on_full_disk)
    done = command("train", experiment(), "--overwrite", "--set", "seed=2")
    refused(done, "Cannot save", "Free some space", "is as it was", status=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small"]


def test_interrupted(experiment, tmp_path):
    config = experiment(training={"epochs": 100000, "steps_per_epoch": 2, "batch_size": 4})
    process = start(["train", config], cwd=tmp_path)
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("Epoch 3/"):
            break
    process.send_signal(2)
    try:
        lines.append(process.communicate(timeout=120)[1])
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    message = "".join(lines)
    assert process.returncode == 1, message
    assert "Traceback" not in message
    assert "Interrupted. The last finished epoch, " in message
    folder = tmp_path / "runs" / "small"
    assert str(folder.relative_to(tmp_path) / "model.keras") in message
    epoch = int(message.partition("finished epoch, ")[2].partition(",")[0])
    assert epoch >= 2 and len(history(folder)["loss"]) >= epoch
    assert saving.load_model(folder / "model.keras").optimizer.iterations == 2 * epoch
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_time_budget(command, experiment):
    config = experiment(
        training={"epochs": 10**6, "batch_size": 4, "steps_per_epoch": 2, "max_minutes": 0.02}
    )
    done = command("train", config, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["minutes"] < 5


@pytest.mark.parametrize("dtype", ["mixed_bfloat16"])
def test_mixed_precision(command, experiment, dtype, backend):
    done = command("train", experiment(), "--set", f"training.dtype={dtype}", "--json")
    assert done.status == 0, done.err
    model = ek.models.saving.load_model("runs/small/model.keras")
    assert model.dtype_policy.name == dtype


@pytest.mark.once
def test_compare_backends(command, experiment, tmp_path):
    assert command("train", experiment()).status == 0
    done = command("evaluate", "runs/small", "--compare-backends", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["first"] != found["second"] and found["difference"] <= 1e-4
    path = tmp_path / "runs" / "small" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["held_out"]["bits_per_byte"] += 0.01
    path.write_text(json.dumps(metrics), encoding="utf-8")
    done = command("evaluate", "runs/small", "--compare-backends")
    refused(done, "differ by 1.0e-02", status=1)
    assert "(trained)" in done.out
