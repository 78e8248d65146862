"""`CausalLM.generate`: through the state, the same tokens that whole passes would give."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras import backend

from laws.support import call  # isort: skip - after ember_keras

VOCABULARY = 23
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def model():
    model = ek.models.CausalLM(VOCABULARY, width=16, blocks=["hyena", "gated_mlp", "attention"])
    model.build((None, None))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape).astype("float32"))
    return model


def by_whole_passes(model, prompt, count):
    """The likeliest continuation, each token out of a pass over all before it."""
    tokens = list(prompt)
    for _ in range(count):
        logits = backend.to_numpy(call(model, np.array([tokens], "int32")))
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


def test_greedy_equals_whole_passes(model):
    out = model.generate(PROMPT, max_new_tokens=6, temperature=0.0)
    assert out.dtype == "int32" and out.tolist() == by_whole_passes(model, PROMPT, 6)
    assert model.generate(PROMPT, max_new_tokens=0).tolist() == PROMPT


def test_a_batch_of_uneven_prompts_equals_each_alone(model):
    prompts = [PROMPT, [7], [2, 6, 5, 3, 5, 8, 9]]
    together = model.generate(prompts, max_new_tokens=5, temperature=0.0)
    for prompt, row in zip(prompts, together, strict=True):
        assert row.tolist() == model.generate(prompt, max_new_tokens=5, temperature=0.0).tolist()


def test_seed(model):
    def draw(seed):
        return model.generate(PROMPT, max_new_tokens=12, temperature=2.0, seed=seed).tolist()

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1


@pytest.mark.parametrize("only_one", [{"top_k": 1}, {"top_p": 1e-6}])
def test_a_choice_of_one_is_greedy(model, only_one):
    greedy = model.generate(PROMPT, max_new_tokens=6, temperature=0.0)
    drawn = model.generate(PROMPT, max_new_tokens=6, temperature=1.0, seed=0, **only_one)
    assert drawn.tolist() == greedy.tolist()


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({"top_k": 3}, 3), ({"top_k": 999}, VOCABULARY), ({"top_p": 0.5}, None)],
)
def test_only_likely_tokens_are_drawn(model, options, allowed):
    logits = backend.to_numpy(model(np.array([PROMPT], "int32")))[0, -1].astype("float64")
    order = np.argsort(-logits)
    chance = np.exp(logits[order] - logits.max())
    if allowed is None:  # The fewest that together reach the probability.
        allowed = int(np.searchsorted(np.cumsum(chance) / chance.sum(), options["top_p"])) + 1
    drawn = {
        int(model.generate(PROMPT, max_new_tokens=1, temperature=1.0, seed=seed, **options)[-1])
        for seed in range(30)
    }
    assert drawn <= set(order[:allowed].tolist())


def test_stop_token_ends_its_row_alone(model):
    prompts = [PROMPT, [7]]
    free = model.generate(prompts, max_new_tokens=8, temperature=0.0)
    stop = int(free[0][len(PROMPT)])  # The first row ends at once.
    stopped = model.generate(prompts, max_new_tokens=8, temperature=0.0, stop_token=stop)
    assert stopped[0].tolist() == [*PROMPT, stop]
    second = free[1].tolist()
    end = second.index(stop, 1) + 1 if stop in second[1:] else len(second)
    assert stopped[1].tolist() == second[:end]


def test_callback_hears_every_token_as_it_comes(model):
    heard = []
    out = model.generate(
        [PROMPT, [7]], max_new_tokens=4, temperature=1.0, seed=0, callback=heard.append
    )
    assert np.stack(heard, axis=1).tolist() == [row[-4:].tolist() for row in out]


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ([], {}, "no prompts"),
        ([[1], []], {}, "empty prompt"),
        ([VOCABULARY], {}, "expected 0 to 22"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens=-1"),
        (PROMPT, {"temperature": -1.0}, "temperature=-1.0"),
        (PROMPT, {"top_k": 0}, "top_k=0"),
        (PROMPT, {"top_p": 0.0}, "top_p=0.0"),
        (PROMPT, {"seed": -1}, "seed=-1"),
        (PROMPT, {"stop_token": VOCABULARY}, "stop_token=23"),
    ],
)
def test_refused(model, prompt, options, words):
    with pytest.raises(ValueError, match=words):
        model.generate(prompt, **{"max_new_tokens": 2, **options})


@pytest.mark.parametrize("prompt", ["text", b"text", [0.5, 1.0]])
def test_refused_types(model, prompt):
    with pytest.raises(TypeError):
        model.generate(prompt, max_new_tokens=2)
