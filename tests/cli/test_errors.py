"""Bad input as a new user would give it: one clear message, the right status, nothing lost."""

import pytest
import typer

from ember_keras.cli.output import reporting


def refused(done, *words, status=2):
    """Asserts a status and one message, without a traceback, that has all of `words`."""
    assert done.status == status, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err
    assert done.err.count("ember-keras: ") == 1


CHANGES = [
    (["--set", "training.epoch=3"], ["training.epoch", "unknown key", "Did you mean 'epochs'?"]),
    (["--set", "training.epochs=many"], ["training.epochs", "'many'", "integer"]),
    (["--set", "training.epochs=0"], ["training.epochs", "greater than or equal to 1"]),
    (["--set", "training.learning_rate=.nan"], ["training.learning_rate", "finite"]),
    (["--set", "training.optimizer=adamv"], ["training.optimizer", "Did you mean 'adam"]),
    (["--set", "training=fast"], ["training", "'fast'", "expected a mapping"]),
    (["--set", "modle.width=3"], ["modle", "unknown key", "Did you mean 'model'?"]),
    (["--set", "model.blocks[1]=atention"], ["model.blocks[1]", "Did you mean 'attention'?"]),
    (["--set", "model.blocks[0].ordr=3"], ["model.blocks[0].ordr", "Did you mean 'order'?"]),
    (["--set", "model.type=causal_llm"], ["model.type", "Did you mean 'causal_lm'?"]),
    (["--set", "task.type=byte_txt"], ["task.type", "Did you mean 'byte_text'?"]),
    (["--set", "task.lenght=3"], ["task.lenght", "Did you mean 'length'?"]),
    (["--set", "task.length=1"], ["length=1", "at least 2"]),
    (["--set", "seed=-1"], ["seed: received -1, expected a whole number from 0 to 4294967295"]),
    (["--set", f"seed={2**32}"], ["seed: received 4294967296, expected a whole number from 0"]),
    (["--set", f"seed={2**70}"], ["seed: received 1180591620717411303424, expected"]),
    (["--set", "name=../elsewhere"], ["../elsewhere", "--output"]),
    (["--set", "epochs"], ["epochs", "key=value"]),
    (["--set", "type=evaluation"], ["type"]),
]


@pytest.mark.parametrize(("options", "words"), CHANGES, ids=[change[0][1] for change in CHANGES])
def test_configuration(command, experiment, tmp_path, options, words):
    refused(command("train", experiment(), *options), *words)
    assert not (tmp_path / "runs").exists()


FILES = {
    "missing.yaml": (None, "no such file"),
    "empty.yaml": ("", "is empty"),
    "list.yaml": ("- 1\n", "mapping"),
    "broken.yaml": ("task: [\n", "line 2"),
    "twice.yaml": ("seed: 1\nseed: 2\n", "stands twice"),
    "no_task.yaml": ("model: causal_lm\n", "needs this key"),
}


@pytest.mark.parametrize("name", FILES)
def test_configuration_file(command, tmp_path, name):
    text, words = FILES[name]
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    refused(command("train", tmp_path / name), words)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.vocab_size": 100}, ["model.vocab_size", "100", "256"]),
        (
            {"model": "sequence_classifier"},
            ["model.type", "sequence_classifier", "language modeling"],
        ),
        ({"model.blocks[1]": "{type: attention, num_heads: 3}"}, ["model", "num_heads"]),
        ({"task.files": "nowhere.txt"}, ["nowhere.txt", "there is nothing"]),
        ({"task.files": "{data}/empty.txt"}, ["empty.txt", "empty"]),
        ({"training.keep": "best"}, ["training.keep", "validation"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_data_and_model(command, experiment, data, tmp_path, changes, words):
    options = []
    for key, value in changes.items():
        options += ["--set", f"{key}={value}".replace("{data}", str(data))]
    refused(command("train", experiment(), *options), *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.trains
@pytest.mark.parametrize(
    ("name", "words"), [("nan", ["nan", "sample 3", "missing="]), ("no_steps", ["0"])]
)
def test_series(command, experiment, data, name, words):
    config = experiment(
        task={"type": "time_series", "files": str(data / f"{name}.npz")},
        model="sequence_classifier",
    )
    refused(command("train", config), f"{name}.npz", *words)


def test_numpy_predicts_only(command, experiment, backend):
    if backend != "numpy":
        pytest.skip("the other backends train")
    refused(command("train", experiment()), "numpy", "predicts only", "KERAS_BACKEND=")


def test_models(command, runs, tmp_path):
    whole = (runs / "series" / "model.keras").read_bytes()
    (tmp_path / "short.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.keras").write_text("no model", encoding="utf-8")
    refused(command("evaluate", "nowhere"), "nowhere", "run folder or a `.keras` file")
    refused(command("evaluate", "shrt.keras"), "Did you mean 'short.keras'?")
    refused(command("evaluate", "short.keras"), "short.keras", "cut short")
    refused(command("predict", "text.keras", "x.npy"), "text.keras")
    refused(command("evaluate", "."), "model.keras")


def test_inputs(command, runs, data, tmp_path):
    series = runs / "series"
    refused(command("predict", series, "nowhere.npz"), "nowhere.npz", "does not exist")
    refused(command("predict", series, data / "text.txt"), "text.txt", ".npz")
    refused(command("evaluate", series, data / "series.npy"), "without targets")
    refused(command("predict", series, data / "nan.npz"), "nan.npz", "sample 3")
    refused(command("predict", series, data / "series.npy", "-o", "out.doc"), "out.doc", ".csv")
    refused(command("evaluate", series, "in_context_recall"), "vocab_size")
    refused(command("evaluate", series, "in_context_recal"), "Did you mean 'in_context_recall'?")
    refused(command("generate", series), "SequenceClassifier", "causal_lm")
    refused(command("generate", runs / "text", "--prompt", ""), "empty prompt")
    refused(command("generate", runs / "text", "--top-p", "2"), "--top-p")
    refused(command("generate", runs / "text", "--min-p", "0"), "--min-p")
    refused(command("generate", runs / "text", "--stop", ""), "--stop")
    refused(
        command("generate", runs / "text", "--repetition-penalty", "nan"), "--repetition-penalty"
    )
    start = ("generate", runs / "text")
    refused(
        command(*start, "--beams", "300"), "beams=300, expected an integer from 1 to vocab_size=256"
    )
    refused(command(*start, "--beams", "2", "--top-k", "3"), "--beams 2 and --top-k 3")
    refused(command(*start, "--beams", "2", "--seed", "0"), "--beams 2 and --seed 0")
    refused(command(*start, "--length-penalty", "2"), "--length-penalty 2.0", "with --beams")
    refused(command("evaluate", runs / "text", "--compare-backends"), "metrics.json")
    (tmp_path / "alone.keras").write_bytes((series / "model.keras").read_bytes())
    refused(command("evaluate", "alone.keras"), "config.yaml", "time_series")


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train"], ["train", "x.yaml", "--epochs", "3"], ["generate", "x", "-n", "zero"]],
    ids=" ".join,
)
def test_arguments(command, arguments):
    done = command(*arguments)
    assert done.status == 2
    assert "Traceback" not in done.err
    assert "Error" in done.err


@pytest.mark.parametrize("error", [PermissionError, IsADirectoryError, NotADirectoryError])
def test_a_path_that_cannot_be_used(error, capfd):
    with pytest.raises(typer.Exit) as left, reporting():
        raise error(13, "Permission denied", "model.keras")
    assert left.value.exit_code == 2
    assert "Permission denied: 'model.keras'" in capfd.readouterr().err


def test_kind(command):
    refused(command("list", "modles"), "Did you mean 'models'?")


def test_traceback_on_request(command):
    with pytest.raises(ValueError, match="no such file"):
        command("train", "missing.yaml", "--traceback")
