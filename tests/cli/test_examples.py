"""Every example configuration trains, briefly, on every backend that trains."""

import json
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
BRIEFLY = ["training.epochs=1", "training.steps_per_epoch=2", "training.batch_size=4"]
SMALLER = {
    "byte_lm": ["model.width=16", "model.repeats=1", "task.length=64", "task.holdout=0.01"],
    "in_context_recall": ["model.width=16", "task.train_samples=64"],
    "preset_lm": ["model.preset=griffin-tiny", "task.length=64", "task.holdout=0.01"],
    "mixture_lm": ["model.width=16", "model.repeats=1", "task.length=64", "task.holdout=0.01"],
    "time_series": ["model.width=16"],
}


@pytest.mark.trains
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_example(command, name):
    changes = [*BRIEFLY, *SMALLER[name]]
    if name.endswith("_lm"):
        changes.append("sample.length=8")
    if name == "in_context_recall":
        changes += ["task.validation_samples=64", "task.test_samples=64"]
    sets = [part for change in changes for part in ("--set", change)]
    done = command("train", CONFIGS / f"{name}.yaml", *sets, "--json")
    assert done.status == 0, done.err
    metrics = json.loads(done.out)
    assert metrics["epoch"] == 1 and metrics["held_out"]
