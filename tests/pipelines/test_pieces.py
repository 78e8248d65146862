"""The parts of the pipelines: run folders, optimizers, configurations."""

import pytest

import ember_keras as ek
from ember_keras.config import ConfigError, to_yaml
from ember_keras.models.decay import is_decayed
from ember_keras.pipelines import (
    Generation,
    InputError,
    RunError,
    SampleSettings,
    TrainingSettings,
)
from ember_keras.pipelines.errors import message_of
from ember_keras.pipelines.figures import even_batch_size
from ember_keras.pipelines.files import RunFolder, check_name, write_text
from ember_keras.pipelines.optimizers import make_optimizer
from ember_keras.pipelines.training import build_model

EXPERIMENT = {
    "type": "training",
    "task": {"type": "in_context_recall", "length": 8},
    "model": {"type": "causal_lm", "width": 8, "blocks": ["hyena", "gated_mlp"]},
}


def fill(folder, text):
    write_text(folder.path / "config.yaml", text)
    folder.publish()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beams": 2, "seed": 1}, "beams=2 and seed=1; expected one of them"),
        ({"beams": 2, "sample": SampleSettings(top_p=0.5)}, "beams=2 and top_p=0.5"),
        ({"length_penalty": 2.0}, "length_penalty=2.0 without beams"),
    ],
)
def test_a_search_draws_nothing(options, words):
    with pytest.raises(InputError, match=words):
        Generation(**options)


def test_run_folder_takes_its_name_when_published(tmp_path):
    folder = RunFolder(tmp_path / "runs", "one")
    assert not (tmp_path / "runs" / "one").exists()
    fill(folder, "first")
    folder.discard()
    assert (tmp_path / "runs" / "one" / "config.yaml").read_text(encoding="utf-8") == "first"
    with pytest.raises(InputError, match="--overwrite"):
        RunFolder(tmp_path / "runs", "one")


def test_run_folder_keeps_the_old_one_until_then(tmp_path):
    fill(RunFolder(tmp_path, "one"), "first")
    given_up = RunFolder(tmp_path, "one", overwrite=True)
    write_text(given_up.path / "config.yaml", "second")
    given_up.discard()
    assert (tmp_path / "one" / "config.yaml").read_text(encoding="utf-8") == "first"
    fill(RunFolder(tmp_path, "one", overwrite=True), "third")
    assert (tmp_path / "one" / "config.yaml").read_text(encoding="utf-8") == "third"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_run_folder_does_not_follow_links(tmp_path):
    fill(RunFolder(tmp_path, "one"), "first")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with pytest.raises(InputError, match="no run folder"):
        RunFolder(tmp_path, "link", overwrite=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "-x", "a b", "a" * 101])
def test_names(name):
    with pytest.raises(InputError, match="run name"):
        check_name(name)


def test_a_missing_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path / "file", "one")


@pytest.mark.parametrize(("samples", "most", "expected"), [(150, 32, 30), (7, 32, 7), (101, 4, 32)])
def test_even_batch_size(samples, most, expected):
    assert even_batch_size(samples, most) == expected


def test_weight_decay_is_for_matrices_between_features():
    model = ek.models.CausalLM(16, 8, ["hyena", "gated_mlp", "fft_conv"])
    model.build((None, 8))
    decayed = {v.path: is_decayed(v) for v in model.trainable_variables}
    for path, yes in decayed.items():
        assert not (yes and any(word in path for word in ("norm", "filter", "bias", "skip"))), path
    assert [path for path, yes in decayed.items() if yes and "gate_up/kernel" in path]
    for name in ("adamw", "adam", "sgd", "lion"):
        settings = TrainingSettings(optimizer=name, weight_decay=0.1, beta_2=0.9)
        optimizer = make_optimizer(settings, model)
        assert optimizer.weight_decay == 0.1 and optimizer.global_clipnorm == 1.0


def test_a_model_that_sees_what_it_is_to_predict_is_refused():
    task = ek.registry.tasks.build("in_context_recall", length=8, train_samples=4)
    data = task.load(0)
    with pytest.raises(ConfigError, match="looks both ways"):
        build_model({"type": "masked_lm", "width": 8}, task, data)
    causal = {"type": "masked_lm", "width": 8, "blocks": ["lru"]}
    assert build_model(causal, task, data).vocab_size == 16


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "mamba", "state_dim": 10**9}, "bytes of weights"),
        ({"type": "mixture_of_experts", "num_experts": 10**9}, "bytes of weights"),
        ({"type": "mlp", "hidden_dim": 10**12}, "bytes of weights"),
        ({"type": "hyena", "order": 10**8}, "too many layers"),
    ],
)
def test_a_model_that_no_machine_holds_is_refused_before_memory_is_taken(block, words, monkeypatch):
    monkeypatch.setattr("ember_keras.models.saving.budget.MOST_LAYERS", 200)
    task = ek.registry.tasks.build("in_context_recall", length=8, train_samples=4)
    with pytest.raises(ConfigError, match=f"asks for .*{words}.*smaller width"):
        build_model({"type": "causal_lm", "width": 8, "blocks": [block]}, task, task.load(0))


def test_configuration_round_trip():
    training = ek.registry.pipelines.build(EXPERIMENT)
    config = {"type": "training", **training.get_config()}
    again = ek.registry.pipelines.build(ek.config.from_yaml(to_yaml(config)))
    assert again.get_config() == training.get_config()
    assert training.training == TrainingSettings()
    assert training.name == "in_context_recall"


def test_paths_of_errors():
    for key, value, path in (
        ("training", {"epochs": "3"}, "training.epochs"),
        ("sample", {"prompt": ""}, "sample.prompt"),
        (
            "model",
            {"type": "causal_lm", "blocks": [{"type": "x"}]},
            "model.blocks[0].type",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            ek.registry.pipelines.build({**EXPERIMENT, key: value})
        assert caught.value.path == path


def test_message_of():
    wrapped = "Exception.\n\n\x1b[1mWrong width.\x1b[0m\n\nArguments received by X:\n  a"
    assert message_of(ValueError(wrapped)) == "Wrong width."
    assert message_of(OSError(28, "No space left on device")) == "No space left on device"
    assert message_of(RunError("It failed.")) == "It failed."
    assert message_of(MemoryError()) == "MemoryError"
