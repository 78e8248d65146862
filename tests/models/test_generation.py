"""`CausalLM.generate`: through the state, the same tokens that whole passes would give."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras import backend
from ember_keras.models.stepping import Runner, room_for

from laws.support import call  # isort: skip - after ember_keras

VOCABULARY = 23
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def model():
    return with_weights(["hyena", "mamba", "attention"])


def with_weights(blocks, **options):
    model = ek.models.CausalLM(VOCABULARY, width=16, blocks=blocks, **options)
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
    def draw(seed, **options):
        options = {"temperature": 2.0, **options}
        return model.generate(PROMPT, max_new_tokens=12, seed=seed, **options).tolist()

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1
    greedy = model.generate(PROMPT, max_new_tokens=12, temperature=0.0).tolist()
    for only_one in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert draw(0, **only_one) == greedy


def test_many_tokens_in_one_call_are_those_of_single_steps(model):
    many = model.generate(PROMPT, max_new_tokens=40, temperature=0.0).tolist()
    single = [piece.tokens for piece in model.stream(PROMPT, 40, temperature=0.0)]
    assert many == PROMPT + single
    stop = single[20]
    stopped = model.generate(PROMPT, max_new_tokens=40, temperature=0.0, stop_token=stop)
    assert stopped.tolist() == PROMPT + single[: single.index(stop) + 1]


def test_repetition_penalty_counts_the_prompt_too(model):
    out = model.generate(PROMPT, 14, temperature=0.0, repetition_penalty=1e6).tolist()
    assert len(set(out[5:])) == 14 and not set(PROMPT) & set(out[5:])


def test_stop_strings_end_a_row(model):
    letters = "abcdefghijklmnopqrstuvw"

    def decode(tokens):
        return "".join(letters[token] for token in tokens)

    free = decode(model.generate(PROMPT, 12, temperature=0.0)[len(PROMPT) :])
    options = {"max_new_tokens": 12, "temperature": 0.0, "stop": free[3:6]}
    cut = free[: free.index(free[3:6])]
    assert model.generate_text(PROMPT, decode, **options) == cut
    out = model.generate(PROMPT, decode=decode, **options)
    assert decode(out[len(PROMPT) :]) == cut + free[3:6]
    pieces = [piece.text for piece in model.stream(PROMPT, decode=decode, **options)]
    assert "".join(pieces) == cut and len(pieces) == len(cut) + 3
    texts = model.generate_text([PROMPT, [7]], decode, **options)
    assert texts[0] == cut and len(texts) == 2


def test_few_shapes_are_compiled(monkeypatch):
    """Neither the length of a prompt nor the number of new tokens is a shape of its own."""
    met = []
    plain = Runner._chunk

    def counted(self, trainable, other, tokens, *rest):
        met.append(tuple(tokens.shape))
        return plain(self, trainable, other, tokens, *rest)

    monkeypatch.setattr(Runner, "_chunk", counted)
    model = with_weights(["mamba", "attention"])
    for length in (1, 2, 5, 17, 40):
        model.generate([1] * length, max_new_tokens=3 + length % 7, temperature=1.0, seed=0)
    assert set(met) == {(1, 16), (1, 64), (1, 1)}
    if backend.name() in ("jax", "mlx", "tensorflow"):
        assert len(met) == 3


def test_rooms_are_of_few_sizes():
    rooms = {room_for(positions) for positions in range(1, 5000)}
    assert rooms == {64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144}
    assert all(room_for(positions) >= positions for positions in range(1, 5000))


def test_a_long_prompt_is_read_in_chunks(model):
    prompt = np.random.default_rng(0).integers(0, VOCABULARY, 600).tolist()
    out = model.generate(prompt, max_new_tokens=2, temperature=0.0)
    assert out.tolist() == by_whole_passes(model, prompt, 2)


def test_padding_is_neither_read_nor_written():
    model = with_weights(["mamba"], pad_token=0)
    model.embedding.embeddings.assign(np.eye(VOCABULARY, 16, dtype="float32") * 9)
    assert 0 not in model.generate([1, 2], max_new_tokens=20, temperature=5.0, seed=0)[2:]
    with pytest.raises(ValueError, match="padding token 0"):
        model.generate([1, 0])


@pytest.mark.filterwarnings("ignore:(?s).*invalid value:RuntimeWarning")
def test_weights_that_are_no_numbers_are_found():
    model = with_weights(["mamba"])
    for new in (1, 20):
        model.embedding.embeddings.assign(np.full((VOCABULARY, 16), np.nan, "float32"))
        with pytest.raises(ValueError, match="logits of row 0"):
            model.generate([1, 2], max_new_tokens=new, temperature=0.0)


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
        (None, {}, "no prompt, expected"),
        ([], {}, "no prompts"),
        ([[1], []], {}, "empty prompt"),
        ([VOCABULARY], {}, "expected 0 to 22"),
        (PROMPT, {"max_new_tokens": -1}, "max_new_tokens=-1"),
        (PROMPT, {"temperature": -1.0}, "temperature=-1.0"),
        (PROMPT, {"top_k": 0}, "top_k=0"),
        (PROMPT, {"top_p": 0.0}, "top_p=0.0"),
        (PROMPT, {"seed": -1}, "seed=-1"),
        (PROMPT, {"stop_token": VOCABULARY}, "stop_token=23"),
        (PROMPT, {"stop": "", "decode": bytes}, "empty string"),
        (PROMPT, {"stop": "x"}, "without `decode`"),
        (PROMPT, {"min_p": 2}, "min_p=2"),
        ([[[1]]], {}, "of shape"),
        (PROMPT, {"max_new_tokens": 2.5}, "max_new_tokens=2.5, expected an integer"),
        (PROMPT, {"max_new_tokens": None}, "max_new_tokens=None"),
        (PROMPT, {"top_k": 1.5}, "top_k=1.5, expected an integer"),
        (PROMPT, {"top_k": True}, "top_k=True"),
        (PROMPT, {"temperature": "hot"}, "temperature='hot'"),
        (PROMPT, {"top_p": "all"}, "top_p='all'"),
        (PROMPT, {"stop_token": 1.5}, "stop_token=1.5, expected an integer"),
        (PROMPT, {"repetition_penalty": None, "seed": 1.5}, "seed=1.5"),
    ],
)
def test_refused(model, prompt, options, words):
    with pytest.raises(ValueError, match=words):
        model.generate(prompt, **{"max_new_tokens": 2, **options})


@pytest.mark.parametrize("prompt", ["text", b"text", [0.5, 1.0], 5, np.int64(5), np.array(5)])
def test_refused_types(model, prompt):
    with pytest.raises(TypeError):
        model.generate(prompt, max_new_tokens=2)
