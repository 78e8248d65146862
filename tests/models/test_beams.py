"""`CausalLM.beam_search`."""

import itertools

import numpy as np
import pytest

import ember_keras as ek
from ember_keras import backend

VOCABULARY = 6
PROMPT = [3, 1, 4]


@pytest.fixture(scope="module")
def model():
    model = ek.models.CausalLM(VOCABULARY, width=16, blocks=["hyena", "attention", "mamba"])
    model.build((None, None))
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape).astype("float32"))
    return model


def scores(model, prompt, length, stop=None, penalty=1.0):
    """Every continuation of a length, and the score of each, out of whole passes."""
    every = np.array(list(itertools.product(range(VOCABULARY), repeat=length)), "int32")
    rows = np.concatenate([np.tile(np.array(prompt, "int32"), (len(every), 1)), every], axis=1)
    logits = backend.to_numpy(model(rows)).astype("float64")[:, len(prompt) - 1 : -1]
    chances = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    taken = np.take_along_axis(chances, every[:, :, None], axis=2)[:, :, 0]
    found = {}
    for row, each in zip(every.tolist(), taken, strict=True):
        end = row.index(stop) + 1 if stop in row else length
        found[tuple(row[:end])] = float(each[:end].sum()) / end**penalty
    return found


@pytest.mark.parametrize("stop", [None, 2])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_as_many_beams_as_tokens_two_steps_are_exhaustive(model, stop, penalty):
    found = scores(model, PROMPT, 2, stop, penalty)
    best = max(found, key=found.get)
    out = model.beam_search(PROMPT, 2, beams=VOCABULARY, length_penalty=penalty, stop_token=stop)
    assert out.tolist() == [*PROMPT, *best]


def test_one_beam_is_greedy_and_more_are_no_worse(model):
    greedy = model.generate(PROMPT, max_new_tokens=4, temperature=0.0)
    one = model.beam_search(PROMPT, 4, beams=1)
    assert one.dtype == "int32" and one.tolist() == greedy.tolist()
    found = scores(model, PROMPT, 4)
    several = model.beam_search(PROMPT, 4, beams=VOCABULARY)
    assert found[tuple(several[3:].tolist())] >= found[tuple(greedy[3:].tolist())]


def test_a_batch_of_uneven_prompts_equals_each_alone(model):
    prompts = [PROMPT, [2]]
    together = model.beam_search(prompts, 5, beams=VOCABULARY, stop_token=1)
    for prompt, row in zip(prompts, together, strict=True):
        alone = model.beam_search(prompt, 5, beams=VOCABULARY, stop_token=1)
        assert row.tolist() == alone.tolist()


@pytest.mark.parametrize("decode", [bytes, lambda tokens: "".join(map(chr, tokens))])
def test_a_stop_string_ends_a_continuation(model, decode):
    greedy = model.beam_search(PROMPT, 5, beams=1).tolist()
    stop = "".join(map(chr, greedy[4:6]))  # Of two tokens: a continuation ends with the second.
    end = next(at for at in range(3, 8) if greedy[at : at + 2] == greedy[4:6]) + 2
    options = {"beams": 1, "length_penalty": -9.0, "decode": decode}  # The shortest is the best.
    found = model.beam_search([PROMPT, PROMPT], 5, stop=[stop, "no such"], **options)
    assert [row.tolist() for row in found] == [greedy[:end]] * 2
    for penalty in (0.0, 1.0):
        options = {"beams": VOCABULARY, "length_penalty": penalty}
        by_text = model.beam_search(PROMPT, 4, stop="\x02", decode=decode, **options)
        by_token = model.beam_search(PROMPT, 4, stop_token=2, **options)
        assert by_text.tolist() == by_token.tolist()


def test_of_equal_scores_the_first(model):
    flat = ek.models.CausalLM(VOCABULARY, width=16, blocks=["gated_mlp"])
    flat.build((None, None))
    flat.embedding.embeddings.assign(np.zeros((VOCABULARY, 16), "float32"))
    assert flat.beam_search([5], 3, beams=3).tolist() == [5, 0, 0, 0]
    assert flat.beam_search([5], 3, beams=3, repetition_penalty=2.0).tolist()[:1] == [5]


def test_after_a_past(model):
    past = model.read(PROMPT[:2])
    whole = model.beam_search(PROMPT, 4, beams=VOCABULARY)
    assert model.beam_search(PROMPT[2:], 4, beams=VOCABULARY, past=past).tolist() == whole.tolist()
    assert model.beam_search(PROMPT, 0).tolist() == PROMPT


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beams": 0}, "beams=0"),
        ({"beams": VOCABULARY + 1}, "beams=7"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"stop_token": -1}, "stop_token=-1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5, expected an integer"),
        ({"beams": 2.5}, "beams=2.5, expected an integer"),
        ({"beams": None}, "beams=None"),
        ({"stop": "end"}, "without `decode`"),
        ({"stop": "", "decode": bytes}, "an empty string in `stop`"),
    ],
)
def test_refused(model, options, words):
    with pytest.raises(ValueError, match=words):
        model.beam_search(PROMPT, **options)
