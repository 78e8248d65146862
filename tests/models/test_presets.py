"""Presets build from Python and from YAML, train on `byte_text`, and generate."""

import functools

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras
from ember_keras.config.presets import FAMILIES


@functools.cache
def _task():
    task = ek.registry.tasks.build("byte_text", length=16)
    return task, task.load(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_on_byte_text_and_generates(family, backend):
    keras.utils.set_random_seed(0)
    task, data = _task()
    model = ek.models.presets.build(f"{family}-tiny", **task.model_arguments(data))
    if backend != "numpy":
        batches = task.batches(data, batch_size=2, seed=0, steps=2)
        model.compile(keras.optimizers.Adam(1e-3), **task.compile_arguments())
        history = model.fit(
            batches, shuffle=False, callbacks=[batches.callback], epochs=1, verbose=0
        ).history
        assert np.isfinite(history["loss"]).all()
    written = model.generate(list(b"to be"), max_new_tokens=3, seed=0)
    assert written.shape == (8,) and bytes(written[:5].tolist()) == b"to be"


def test_yaml_alone_builds_a_preset():
    text = "{preset: mamba-tiny, vocab_size: 9, dropout: 0.5}"
    model = ek.registry.models.build(ek.config.from_yaml(text))
    assert (model.vocab_size, model.width, model.dropout) == (9, 32, 0.5)
    again = ek.registry.models.build(ek.registry.to_config(model))
    assert ek.registry.to_config(again) == ek.registry.to_config(model)
    config = {"preset": "mamba-tiny", "type": "sequence_classifier", "num_classes": 3}
    assert isinstance(ek.registry.models.build(config), ek.models.SequenceClassifier)


def test_a_run_is_configured_by_a_preset():
    run = {"type": "training", "task": "byte_text", "model": {"preset": "lstm-tiny"}}
    training = ek.registry.pipelines.build(run)
    assert training.model == ek.models.presets.config("lstm-tiny")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"preset": "mambo-small"}, "preset: received 'mambo-small'.*Did you mean 'mamba-small'"),
        ({"preset": 3}, "received 3, expected a preset"),
        ({"preset": "mamba-small", "widht": 3}, "widht: unknown key.*Did you mean 'width'"),
    ],
)
def test_a_wrong_preset_says_what_is_right(config, words):
    with pytest.raises(ek.config.ConfigError, match=words):
        ek.registry.models.build(config)
