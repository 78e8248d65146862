"""`ember-keras inspect`: what a model takes, of a configuration, a run or a file."""

import json

import numpy as np


def _fields(done):
    return done.status, done.out, done.err


def test_a_configuration_of_a_model_alone(command, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text("preset: lstm-tiny\nvocab_size: 20\n")
    options = ("--batch-size", "2", "--length", "8", "--no-training")
    status, out, _ = _fields(command("inspect", str(path), *options))
    assert status == 0
    assert out.startswith("causal_lm, 2 x 8 positions\n")
    assert "parameters" in out and "flops a token" in out and "state a sequence" in out
    status, out, _ = _fields(command("inspect", str(path), *options, "--json"))
    found = json.loads(out)
    assert (found["batch_size"], found["length"], found["training_peak_bytes"]) == (2, 8, None)
    assert found["sources"]["flops_per_token"] == "counted"


def test_an_experiment_has_the_batch_and_length_of_its_run(command, experiment):
    status, out, _ = _fields(command("inspect", str(experiment()), "--json", "--no-training"))
    found = json.loads(out)
    assert (status, found["length"]) == (0, 32)
    assert found["parameters"] > 0


def test_a_run_folder_with_vectors(command, runs):
    status, out, _ = _fields(command("inspect", str(runs / "series"), "--length", "4", "--json"))
    found = json.loads(out)
    assert (status, found["batch_size"]) == (0, 1)
    assert found["inference_peak_bytes"] >= found["parameter_bytes"]
    assert np.isfinite(found["flops_per_token"])


def test_what_is_missing_is_said(command, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text("type: sequence_classifier\nwidth: 8\n")
    status, out, err = _fields(command("inspect", str(path)))
    assert (status, out) == (2, "")
    assert "width=None" in err
    assert (
        command("inspect", str(path), "--width", "3", "--length", "4", "--no-training").status == 0
    )
