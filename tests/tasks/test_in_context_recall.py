import json

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.tasks import InContextRecall

VARIANTS = [
    {},
    {"multi_query": False},
    {"vocab_size": 32, "noise_vocab_size": 16, "noise": 0.2},
    {"vocab_size": 33, "noise_vocab_size": 16, "noise": 0.8, "multi_query": False},
    {"vocab_size": 2, "length": 4},
    {"vocab_size": 3, "length": 4, "multi_query": False},
    {"vocab_size": 64, "length": 6},
]


def make(variant, **arguments):
    sizes = {"length": 32, "train_samples": 40, "validation_samples": 20, "test_samples": 20}
    return InContextRecall(**{**sizes, **variant, **arguments})


def answers(tokens, keys, values, vocab_size, multi_query):
    """What must be answered where, by reading one sequence the way a person would."""
    bound, asked = {}, {}
    tokens = list(map(int, tokens))
    at = 0
    while at < len(tokens):
        if not multi_query and tokens[at] == vocab_size - 1:  # The marker: one key follows.
            asked[at + 1] = bound[tokens[at + 1]]
            break
        token = tokens[at]
        if token < keys:
            value = tokens[at + 1]
            if token in bound and multi_query:
                asked[at] = bound[token]
            if token in bound:
                assert value == bound[token]
            assert keys <= value < keys + values
            bound[token] = value
        else:
            assert token >= keys + values and tokens[at + 1] >= keys + values
        at += 2
    return asked


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_answer_stands_in_the_context(variant):
    task = make(variant)
    data = task.load(seed=3)
    keys, values = task.sizes()
    for split in (data.train, data.validation, data.test):
        assert split.x.dtype == split.y.dtype == np.int32
        assert split.x.shape == split.y.shape == split.sample_weight.shape
        assert split.x.shape[1] == task.length
        assert split.x.min() >= 0 and split.x.max() < task.vocab_size
        for x, y, weight in zip(split.x, split.y, split.sample_weight, strict=True):
            expected = answers(x, keys, values, task.vocab_size, task.multi_query)
            assert {int(t): int(y[t]) for t in np.flatnonzero(weight)} == expected
            assert expected  # The last key has always been shown before.
            last = task.length - (2 if task.multi_query else 1)
            assert weight[last] == 1
            assert np.array_equal(y[: task.length - 1], x[1:])


def test_noise_is_as_frequent_as_asked():
    task = make({"vocab_size": 32, "noise_vocab_size": 16, "noise": 0.4}, length=128)
    x = task.generate(np.random.default_rng(0), 400).x
    # 63 pairs of 64 may be noise, and one of them may not.
    assert (x >= 16).mean() == pytest.approx(0.4 * 62 / 64, abs=0.01)


def test_each_shown_key_is_as_likely_asked_last():
    task = make({"vocab_size": 4}, length=8)
    split = task.generate(np.random.default_rng(0), 4000)
    both = [set(row[:-2:2]) == {0, 1} for row in split.x]
    assert split.x[both, -2].mean() == pytest.approx(0.5, abs=0.03)


def test_all_targets_for_training_and_answers_for_scoring():
    data = make({}, train_targets="all").load(0)
    assert data.train.sample_weight[:, :-1].all() and not data.train.sample_weight[:, -1].any()
    assert data.test.sample_weight.mean() < 0.5
    assert make({"multi_query": False}, train_targets="all").load(0).train.sample_weight.all()


def test_load_is_a_pure_function_of_the_seed():
    one, two, other = make({}).load(5), make({}).load(5), make({}).load(6)
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(one, part).x, getattr(two, part).x)
        assert not np.array_equal(getattr(one, part).x, getattr(other, part).x)
    assert one.description == json.loads(json.dumps(one.description))
    assert make({}).model_arguments(one) == {"vocab_size": 16}
    # More training samples leave the test set as it is.
    assert np.array_equal(make({}, train_samples=50).load(5).test.x, one.test.x)


def test_no_test_sequence_was_trained_on():
    data = make({}, train_samples=2000, test_samples=500).load(0)
    trained = {row.tobytes() for row in data.train.x}
    assert not trained & {row.tobytes() for row in np.concatenate([data.test.x, data.validation.x])}


def test_guessing_needs_no_memory(rng):
    task = make({}, test_samples=2000)
    data = task.load(0)
    scored = data.test.y[data.test.sample_weight > 0]
    guess = 8 + rng.integers(8, size=len(scored))
    assert task.baselines(data)["guessing"] == pytest.approx((guess == scored).mean(), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"length": 127}, "even"),
        ({"length": 2}, "at least 4"),
        ({"noise": 0.2}, "noise_vocab_size=0"),
        ({"noise": 1.0, "noise_vocab_size": 4}, "noise=1.0"),
        ({"vocab_size": 16, "noise_vocab_size": 15}, "at least 17"),
        ({"vocab_size": 2, "multi_query": False}, "at least 3"),
        ({"train_samples": 0}, "train_samples=0"),
        ({"train_targets": "some"}, "'some'"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        InContextRecall(**arguments)


def test_it_reads_no_files():
    with pytest.raises(ValueError, match="reads no files"):
        make({}).read("data.npz", {})


def test_it_is_built_by_name_and_saved_as_configuration():
    config = {"type": "in_context_recall", "length": 64, "multi_query": False}
    assert ek.registry.to_config(ek.registry.tasks.build(config)) == config
