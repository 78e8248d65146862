"""`CausalLM.read` and `Past`: kept, used again, saved and loaded."""

import json

import numpy as np
import pytest
from keras import tree

import ember_keras as ek
from ember_keras.models import past_files

VOCABULARY = 23
PROMPT = [3, 1, 4, 1, 5]


def made(blocks=("hyena", "attention", "mamba"), seed=0, **options):
    model = ek.models.CausalLM(VOCABULARY, width=16, blocks=list(blocks), **options)
    model.build((None, None))
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape).astype("float32"))
    return model


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def past(model):
    return model.read(PROMPT, max_length=60)


def greedy(model, prompt, count=6, **options):
    return model.generate(prompt, max_new_tokens=count, temperature=0.0, **options)


def test_a_prefix_is_read_once_and_continued_often(model, past):
    for more in ([7], [2, 9, 6], None):
        whole = greedy(model, PROMPT + (more or []))
        for _ in range(2):
            assert greedy(model, more, past=past).tolist() == whole.tolist()
    rows = greedy(model, [[7], [2, 9, 6]], past=past)
    for row, more in zip(rows, ([7], [2, 9, 6]), strict=True):
        assert row.tolist() == greedy(model, PROMPT + more).tolist()


def test_a_past_goes_on_where_generation_ended(model):
    whole = greedy(model, PROMPT, 9)
    first, past = greedy(model, PROMPT, 4, return_past=True)
    assert first.tolist() == whole[:9].tolist() == past.tokens[0].tolist()
    assert greedy(model, [], 5, past=past).tolist() == whole.tolist()
    stream = model.stream(PROMPT, 9, temperature=0.0)
    head = [next(stream).tokens for _ in range(4)]
    kept = stream.past()
    assert PROMPT + head + [piece.tokens for piece in stream] == whole.tolist()
    assert greedy(model, None, 5, past=kept).tolist() == whole.tolist()


def test_rows_that_ended_keep_their_place(model):
    prompts = [PROMPT, [7]]
    stop = int(greedy(model, PROMPT, 1)[-1])
    rows, past = greedy(model, prompts, 4, stop_token=stop, return_past=True)
    after = greedy(model, [[2], [9]], 3, past=past)
    for row, more, found in zip(rows, ([2], [9]), after, strict=True):
        assert found.tolist() == greedy(model, [*row.tolist(), *more], 3).tolist()


def test_a_larger_room_is_made_where_it_is_needed(model, past):
    assert past.room == 64
    out = greedy(model, None, 80, past=past)
    assert out.tolist() == greedy(model, PROMPT, 80).tolist()


def test_a_recurrent_state_needs_no_room():
    model = made(["mamba"])
    past = model.read(PROMPT)
    out, past = greedy(model, None, 200, past=past, return_past=True)
    assert past.room == 64 and out.tolist() == greedy(model, PROMPT, 200).tolist()


def test_saved_and_loaded(model, past, tmp_path):
    file = tmp_path / "past.safetensors"
    past.save(file)
    again = ek.models.Past.load(file, model)
    assert [row.tolist() for row in again.tokens] == [PROMPT] and again.single
    assert greedy(model, [7], past=again).tolist() == greedy(model, [*PROMPT, 7]).tolist()
    with pytest.raises(FileExistsError):
        past.save(file, overwrite=False)
    two = model.read([PROMPT, [7]])
    two.save(file)
    rows = greedy(model, None, past=ek.models.Past.load(file, model))
    assert rows[1].tolist() == greedy(model, [7]).tolist()


def test_a_past_of_pooled_positions(tmp_path):
    """Its attention has seen a third of the tokens, and the rest of them waits."""
    model = made([{"type": "block", "mixer": "attention", "pool_size": 3}])
    past = model.read([PROMPT, [7]])
    past.save(tmp_path / "past.safetensors")
    again = ek.models.Past.load(tmp_path / "past.safetensors", model)
    for row, prompt in zip(greedy(model, None, 80, past=again), (PROMPT, [7]), strict=True):
        assert row.tolist() == greedy(model, prompt, 80).tolist()
    waiting = again.state(2)[0]["mixer"]["count"]
    assert ek.backend.to_numpy(waiting).tolist() == [2, 1]


def test_a_count_of_another_mixer_is_its_own(model):
    """`Pooled` alone is known to count positions under that name, and by all that stands there."""
    arrays = {
        "tokens": np.array([PROMPT], "int32"),
        "lengths": np.array([len(PROMPT)], "int32"),
        "state.0.mixer.waiting": np.zeros((1, 3, 16), "float32"),
        "state.0.mixer.count": np.array([9], "int32"),
    }
    assert past_files.token_rows(arrays, model, "file")[0].tolist() == PROMPT
    for part in ("output", "number"):
        arrays[f"state.0.mixer.{part}"] = np.zeros((1,), "int32")
    with pytest.raises(ek.models.LoadError, match="is not the number of its tokens"):
        past_files.token_rows(arrays, model, "file")


def test_the_same_model_of_experts_is_known_again_after_other_data(tmp_path):
    """What a mixture reports of its last batch is no part of what the past depends on."""
    model = made(["attention", "mixture_of_experts"])
    model.read(PROMPT).save(tmp_path / "past.safetensors")
    model(np.array([[7, 8, 9]]), training=False)
    assert len(ek.models.Past.load(tmp_path / "past.safetensors", model)) == 1


def test_another_model_is_refused(model, past, tmp_path):
    file = tmp_path / "past.safetensors"
    past.save(file)
    for other, words in (
        (made(["mamba"]), "a model of another configuration"),
        (made(seed=1), "a model of other weights"),
    ):
        with pytest.raises(ek.models.LoadError, match=words):
            ek.models.Past.load(file, other)
        with pytest.raises(ValueError, match="Past of another model"):
            other.generate([1], past=past)


def test_one_other_number_is_another_model(model, past, tmp_path):
    file = tmp_path / "past.safetensors"
    past.save(file)
    other = made()
    table = ek.backend.to_numpy(other.embedding.embeddings).copy()
    table[-1, -1] += 1
    other.embedding.embeddings.assign(table)
    with pytest.raises(ek.models.LoadError, match="weights"):
        ek.models.Past.load(file, other)


def parts(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header, body):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def changed(name, **values):
    def change(header, body):
        header[name].update(values)
        return joined(header, body)

    return change


def length_of_another(header, body):
    """The length of a cache, which would be an index beyond it, with a checksum that fits."""
    import hashlib

    name = next(name for name in header if name.endswith(".length"))
    at = header[name]["data_offsets"][0]
    body = body[:at] + (2**30).to_bytes(4, "little") + body[at + 4 :]
    header["__metadata__"]["sha256"] = hashlib.sha256(body).hexdigest()
    return joined(header, body)


HOSTILE = {
    "empty": lambda header, body: b"",
    "cut": lambda header, body: joined(header, body)[:-5],
    "longer": lambda header, body: joined(header, body) + b"x",
    "no header": lambda header, body: b"\xff" * 64,
    "not json": lambda header, body: (9).to_bytes(8, "little") + b"{'a': 1}}" + body,
    "deep": lambda header, body: (4000).to_bytes(8, "little") + b"[" * 4000 + body,
    "a list": lambda header, body: joined([1], body),
    "other format": changed("__metadata__", format="pt"),
    "huge room": changed("__metadata__", room=str(1 << 30)),
    "odd room": changed("__metadata__", room="65"),
    "no number": changed("__metadata__", room="-1"),
    "many rows": changed("lengths", shape=[1 << 40]),
    "other shape": changed("logits", shape=[1, 1 << 40]),
    "other dtype": changed("logits", dtype="I32"),
    "unknown dtype": changed("logits", dtype=["F32"]),
    "other place": changed("logits", data_offsets=[0, 4]),
    "negative": changed("tokens", shape=[1, -5]),
    "another array": lambda header, body: joined({**header, "more": {}}, body),
    "an array less": lambda header, body: joined(
        {name: place for name, place in header.items() if name != "logits"}, body
    ),
    "changed data": lambda header, body: joined(header, bytes([body[0] ^ 1]) + body[1:]),
    "length of another": length_of_another,
    "an array that clears the screen": lambda header, body: joined({**header, "\x1b[2J": {}}, body),
    "an array of a long name": lambda header, body: joined({**header, "x" * 99_999: {}}, body),
    "a long room": changed("__metadata__", room="x" * 99_999),
    "a long place": changed("logits", data_offsets=["\ud800" * 9_999]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(model, past, tmp_path, kind):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    past.save(good)
    bad.write_bytes(HOSTILE[kind](*parts(good.read_bytes())))
    with pytest.raises(ek.models.LoadError) as caught:
        ek.models.Past.load(bad, model)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_link_to_another_file_tells_nothing_of_it(model, tmp_path):
    (tmp_path / "secret").write_bytes(b"hunter2:" * 9)
    (tmp_path / "past.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(ek.models.LoadError, match="does not begin with the length") as caught:
        ek.models.Past.load(tmp_path / "past.safetensors", model)
    number = int.from_bytes(b"hunter2:", "little")
    assert "hunt" not in str(caught.value) and f"{number:,}" not in str(caught.value)


def test_no_file_or_too_large(model, past, tmp_path):
    with pytest.raises(FileNotFoundError):
        ek.models.Past.load(tmp_path / "none.safetensors", model)
    file = tmp_path / "past.safetensors"
    past.save(file)
    with pytest.raises(ek.models.LoadError, match="max_bytes"):
        ek.models.Past.load(file, model, max_bytes=100)
    with pytest.raises(ValueError, match="safetensors"):
        past.save(tmp_path / "past.npz")


def test_nothing_is_recorded_for_a_gradient(past):
    assert not any(getattr(leaf, "requires_grad", False) for leaf in tree.flatten(past.state(1)))


def test_refused(model, past):
    with pytest.raises(ValueError, match="past of 2 rows"):
        model.generate([[1], [2], [3]], past=model.read([[1], [2]]))
    with pytest.raises(ValueError, match="max_length=2"):
        model.read(PROMPT, max_length=2)
    with pytest.raises(ValueError, match="Received dict as `past`"):
        model.generate([1], past={})
    with pytest.raises(ValueError, match="no prompts"):
        model.read([])
