"""`ember-keras evaluate`, `predict` and `generate`, under every backend."""

import io
import json

import numpy as np
import pytest


def test_evaluate_the_task(command, runs):
    done = command("evaluate", runs / "text")
    assert done.status == 0, done.err
    assert "bits per byte" in done.out and "xz -9e" in done.out


def test_evaluate_a_file(command, runs, data):
    own = json.loads(command("evaluate", runs / "series", "--json").out)
    file = json.loads(command("evaluate", runs / "series", data / "series.npz", "--json").out)
    assert own["samples"] == 5 and file["samples"] == 12
    assert 0 <= file["held_out"]["accuracy"] <= 1
    text = json.loads(command("evaluate", runs / "text", data / "text.txt", "--json").out)
    assert text["held_out"]["bits_per_byte"] > 0


def test_evaluate_a_file_of_a_model_alone(command, runs, tmp_path):
    (tmp_path / "alone.keras").write_bytes((runs / "text" / "model.keras").read_bytes())
    done = command("evaluate", "alone.keras", "byte_text", "--json", "--batch-size", "100")
    assert done.status == 0, done.err
    assert json.loads(done.out)["main_metric"] == "bits_per_byte"


def test_predict(command, runs, data, tmp_path):
    series = runs / "series"
    lines = command("predict", series, data / "series.npy").out.split()
    assert len(lines) == 3 and set(lines) <= {"left", "right"}
    found = json.loads(command("predict", series, data / "series.npy", "--json").out)
    assert found["predictions"] == lines and np.shape(found["outputs"]) == (3, 2)
    for suffix in ("csv", "json", "jsonl", "npy", "npz", "txt"):
        done = command("predict", series, data / "series.npy", "-o", f"out.{suffix}")
        assert done.status == 0 and done.out == "", done.err
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").split() == ["prediction", *lines]
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["predictions"] == lines
    assert np.load(tmp_path / "out.npy").tolist() == lines
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["predictions"].tolist() == lines and arrays["outputs"].shape == (3, 2)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8").split() == lines


def test_predict_next_bytes(command, runs, data):
    found = json.loads(command("predict", runs / "text", data / "text.txt", "--json").out)
    assert np.shape(found["predictions"])[1:] == (32,)


def test_generate(command, runs, tmp_path, monkeypatch):
    options = ["--length", "5", "--seed", "1"]
    first = json.loads(command("generate", runs / "text", "-p", "ab", *options, "--json").out)
    assert len(first["tokens"]) == 7 and first["prompt"] == "ab"
    streamed = command("generate", runs / "text", "-p", "ab", *options)
    assert streamed.status == 0, streamed.err
    assert streamed.out == f"ab{first['text']}\n"
    others = ["--min-p", "0.1", "--repetition-penalty", "1.5", "--stop", first["text"][2:3]]
    cut = json.loads(command("generate", runs / "text", "-p", "ab", *options, "--json",
                             "--stop", first["text"][2:3], "--stop", "never so").out)  # fmt: skip
    assert cut["text"] == first["text"][: first["text"].index(first["text"][2])]
    assert command("generate", runs / "text", "-p", "ab", *options, *others).status == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("ab"))
    done = command("generate", runs / "text", "-p", "-", *options, "-o", "text.txt")
    assert done.status == 0 and done.out == ""
    assert (tmp_path / "text.txt").read_text(encoding="utf-8") == f"ab{first['text']}"


def test_generate_by_beam_search(command, runs):
    start = ["generate", runs / "text", "-p", "ab", "--length", "4", "--beams"]
    found = json.loads(command(*start, "3", "--json").out)
    assert len(found["tokens"]) == 6 and found["prompt"] == "ab"
    written = command(*start, "3", "--length-penalty", "1")
    assert written.status == 0, written.err
    assert written.out == f"ab{found['text']}\n"
    greedy = json.loads(command(*start[:-1], "--temperature", "0", "--json").out)
    assert json.loads(command(*start, "1", "--json").out) == greedy
    cut = json.loads(command(*start, "1", "--stop", greedy["text"][1], "--json").out)
    assert greedy["text"][1] not in cut["text"]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []], ids=["--help", "-h", "none"])
def test_help(command, arguments):
    done = command(*arguments)
    for name in ("train", "evaluate", "predict", "generate", "list", "doctor"):
        assert f"  {name} " in done.out + done.err
        assert command(name, "--help").status == 0


def test_list(command):
    done = command("list")
    assert done.status == 0 and "hyena" in done.out and "byte_text" in done.out
    found = json.loads(command("list", "models", "--json").out)
    assert list(found) == ["models"] and found["models"]["causal_lm"]


def test_schema(command):
    schema = json.loads(command("list", "--schema").out)
    training = schema["$defs"]["pipelines.training"]
    assert schema["$ref"] == "#/$defs/pipelines.training"
    assert training["required"] == ["task", "model"]
    assert "max_minutes" in training["properties"]["training"]["properties"]
    assert json.loads(command("list", "tasks", "--schema").out)["$ref"] == "#/$defs/tasks"


def test_doctor(command, backend):
    found = json.loads(command("doctor", "--json").out)
    assert found["backend"]["name"] == backend
    assert found["backends"][backend]["usable"]
    assert not found["backends"]["numpy"]["trains"]
    for rows in found["kernels"].values():
        assert [row["runs"] for row in rows].count(True) == 1
        assert rows[-1]["kernel"] == "portable"
        assert all(row["reason"] for row in rows if not row["runs"])
    text = command("doctor").out
    assert f"running: {backend}" in text and "portable" in text


def test_version(command, backend):
    done = command("--version")
    assert done.status == 0 and done.out.startswith("ember-keras ") and backend in done.out
