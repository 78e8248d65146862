"""How a token is drawn from logits: numpy alone, so the same everywhere."""

import numpy as np
import pytest

from ember_keras.models.sampling import Sampling, Seen, sample

LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.3, 0.15], "float32"))


def drawn(count=400, logits=LOGITS, **options):
    rng = np.random.default_rng(0)
    rows = np.broadcast_to(logits, (count, len(logits)))
    return np.bincount(sample(rows, rng, Sampling(**options)), minlength=len(logits)) / count


def test_draws_follow_the_probabilities():
    assert np.abs(drawn(20000) - np.exp(LOGITS)).max() < 0.015
    hot = np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum()
    assert np.abs(drawn(20000, temperature=2.0) - hot).max() < 0.015


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"temperature": 0}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 99}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3, 4}),
        ({"min_p": 0.3}, {1, 3, 4}),
        ({"min_p": 1.0}, {1}),
        ({"min_p": 0.3, "temperature": 1e-3}, {1}),
        ({"top_k": 3, "top_p": 0.8, "min_p": 0.5}, {1, 3}),
    ],
)
def test_only_these_are_drawn(options, tokens):
    assert set(np.flatnonzero(drawn(**options)).tolist()) == tokens


def test_of_equal_tokens_the_first():
    equal = np.zeros(6, "float32")
    assert np.flatnonzero(drawn(logits=equal, top_k=2)).tolist() == [0, 1]
    assert np.flatnonzero(drawn(logits=equal, top_p=0.5)).tolist() == [0, 1, 2]
    assert np.flatnonzero(drawn(logits=equal, temperature=0)).tolist() == [0]


def test_a_token_of_no_probability_is_never_drawn():
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf], "float32")
    assert np.flatnonzero(drawn(logits=logits)).tolist() == [1, 3]


def test_nucleus_of_many_tokens_is_the_plain_one():
    logits = np.random.default_rng(1).normal(0, 2, 500)
    chances = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-chances)
    count = int(np.searchsorted(np.cumsum(chances[order]), 0.7)) + 1
    found = np.flatnonzero(drawn(20000, logits, top_p=0.7))
    assert set(found.tolist()) <= set(order[:count].tolist())
    assert len(found) > 0.9 * count


def test_repetition_penalty_divides_or_multiplies():
    logits = np.array([[2.0, -2.0, 2.0, -2.0]], "float32")
    seen = Seen([np.array([0, 1])], 4, 2.0)
    assert seen.penalised(logits).tolist() == [[1.0, -4.0, 2.0, -2.0]]
    seen.add(np.array([2]))
    assert seen.penalised(logits).tolist() == [[1.0, -4.0, 1.0, -2.0]]
    assert Seen([np.array([0])], 4, None).penalised(logits) is logits


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    logits = np.array([[0.0, 1.0], [bad, 1.0]], "float32")
    with pytest.raises(ValueError, match="logits of row 1"):
        sample(logits, np.random.default_rng(0), Sampling(temperature=0))
    with pytest.raises(ValueError, match="row 0"):
        sample(np.full((1, 3), -np.inf), np.random.default_rng(0), Sampling())


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 10**400},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": 0.0},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("nan")},
    ],
)
def test_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        Sampling(**options)
