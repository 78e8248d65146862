"""Masked text, state tracking and compression: what they ask, and that they train from YAML."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.tasks.masked_text import MASK
from ember_keras.tasks.state_tracking import GROUPS, products


@pytest.mark.once
@pytest.mark.parametrize("group", GROUPS)
def test_the_products_are_those_of_a_group(group):
    table = products(group)
    n = len(table)
    assert n == {"z2": 2, "s3": 6, "a4": 12, "s4": 24, "a5": 60, "s5": 120}[group]
    assert (table[0] == np.arange(n)).all() and (table[:, 0] == np.arange(n)).all()
    assert all(len(set(row)) == n for row in table)
    a, b, c = np.random.default_rng(0).integers(n, size=(3, 50))
    assert (table[table[a, b], c] == table[a, table[b, c]]).all()


@pytest.mark.once
def test_states_are_tracked():
    task = ek.registry.tasks.build("state_tracking", group="z2", length=9, train_samples=7)
    data = task.load(1)
    assert (data.train.y == np.cumsum(data.train.x, axis=1) % 2).all()
    assert task.baselines(data) == {"guessing": 0.5} and len(data.test) == 1280
    again = task.load(1)
    assert (again.test.x == data.test.x).all() and len(data.validation) == 1280


@pytest.mark.once
def test_a_compressed_sequence_is_its_own_target():
    task = ek.registry.tasks.build("compression", vocab_size=5, length=6, train_samples=8)
    split = task.load(0).train
    assert (split.x == split.y).all() and (split.x[:, -1] == 4).all() and split.x[:, :-1].max() < 4
    assert split.sample_weight.sum() == 8 * 5


@pytest.mark.once
def test_bytes_are_hidden_and_asked_for():
    task = ek.registry.tasks.build("masked_text", length=64, mask_rate=0.2)
    data = task.load(0)
    for split in (data.validation, data.test):
        asked = split.sample_weight > 0
        assert 0.17 < asked.mean() < 0.23
        assert (split.x[~asked] == split.y[~asked])[split.sample_weight[~asked] == 0].mean() > 0.97
        assert 0.75 < (split.x[asked] == MASK).mean() < 0.85
        assert split.y.max() < MASK
    batches = task.batches(data, batch_size=4, seed=0, steps=3)
    x, y, weight = batches[0]
    assert x.shape == y.shape == weight.shape == (4, 64)
    assert (x != batches[1][0]).any() and (x == batches[0][0]).all()
    batches.epoch = 1
    assert (x != batches[0][0]).any()
    assert 0.1 < task.baselines(data)["commonest byte"] < 0.3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("masked_text", {"mask_rate": 0.0}),
        ("state_tracking", {"length": 0}),
        ("compression", {"vocab_size": 2}),
    ],
)
@pytest.mark.once
def test_what_cannot_be_asked_is_refused(name, options):
    with pytest.raises(ValueError, match="eceived"):
        ek.registry.tasks.build(name, **options)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("task", "model"),
    [
        ({"type": "masked_text", "length": 16, "holdout": 0.01}, "masked_lm"),
        ({"type": "state_tracking", "group": "z2", "length": 8}, "token_classifier"),
        ({"type": "compression", "length": 8}, "autoencoder"),
    ],
)
def test_it_trains_from_a_configuration(task, model, tmp_path):
    if task["type"] != "masked_text":
        task = {**task, "train_samples": 16, "validation_samples": 4, "test_samples": 32}
    run = ek.registry.pipelines.build(
        {
            "type": "training",
            "task": task,
            "model": {"type": model, "width": 8},
            "training": {"epochs": 1, "batch_size": 8, "steps_per_epoch": 2},
        }
    )
    held_out = run.run(tmp_path).metrics["held_out"]
    assert 0 <= held_out["accuracy"] <= 1 and np.isfinite(held_out["cross_entropy"])
