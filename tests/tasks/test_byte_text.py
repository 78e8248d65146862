import json
import math
import sys

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.tasks import ByteText


@pytest.fixture(scope="module")
def reference():
    """The task on CPython's language reference, and its data."""
    task = ByteText(length=64)
    return task, task.load(seed=0)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="measured on CPython 3.11's text")
def test_language_reference_sizes_and_compressors(reference):
    task, data = reference
    sizes = data.description
    assert sizes["held_out_bytes"] == len(data.extra["held_out"]) == 38_025
    assert sizes["train_bytes"] + sizes["validation_bytes"] == 428_092
    # Issue 2 gives these figures, measured with the command line tools on CPython 3.11's text.
    expected = {"gzip -9": 2.07, "bz2 -9": 1.99, "xz -9e": 1.97}
    assert task.baselines(data) == pytest.approx(expected, abs=0.01)


def test_the_last_tenth_of_the_sorted_topics_is_held_out(reference):
    from pydoc_data.topics import topics

    task, data = reference
    names = sorted(topics)
    kept = names[: len(names) - round(len(names) / 10)]
    text = "".join(topics[name] for name in names).encode()
    assert data.extra["held_out"] == "".join(topics[n] for n in names[len(kept) :]).encode()
    validation = read_back(data.validation)
    learnt = data.extra["text"].tobytes()
    assert text == learnt + validation + data.extra["held_out"]


def test_training_windows_are_the_text_in_order(reference):
    task, data = reference
    text = data.extra["text"]
    assert data.train.x.dtype == data.train.y.dtype == np.int32
    flat = data.train.x.reshape(-1)
    assert np.array_equal(flat, text[: len(flat)])
    assert np.array_equal(data.train.y.reshape(-1), text[1 : len(flat) + 1])
    assert len(text) - len(flat) <= task.length


def read_back(split):
    """The bytes that a scored split covers, each taken from where it is scored."""
    return bytes([split.x[0, 0], *split.y[split.sample_weight > 0].tolist()])


@pytest.mark.parametrize("stride", [1, 5, 8, 16, None])
@pytest.mark.parametrize("size", [2, 3, 16, 17, 18, 25, 40, 41, 257])
def test_every_byte_but_the_first_is_scored_once(size, stride, rng):
    text = rng.integers(256, size=size).astype(np.uint8).tobytes()
    task = ByteText(length=16, stride=stride)
    split = task.scored(text)
    assert split.x.shape == split.y.shape == split.sample_weight.shape
    assert split.x.shape[1] == 16
    assert split.sample_weight.sum() == size - 1
    assert read_back(split) == text
    assert np.array_equal(split.x[:, 1:], split.y[:, :-1])
    scored = 0  # The context of each scored byte: all before it, or what the docstring promises.
    for weight in split.sample_weight:
        for place in np.flatnonzero(weight):
            scored += 1
            assert place + 1 == scored or place + 1 >= 16 - (stride or 8) + 1


def test_bits_per_byte_is_over_the_scored_bytes(reference):
    task, data = reference
    evaluation = {"loss": 3.0, "cross_entropy": 2 * math.log(2)}
    assert task.summarize(evaluation, data)["bits_per_byte"] == pytest.approx(2.0)


def test_batches_come_from_the_training_text_only(reference):
    task, data = reference
    batches = task.batches(data, batch_size=8, seed=1, steps=5)
    text = data.extra["text"].tobytes()
    seen = set()
    for epoch in range(3):
        batches.epoch = epoch
        for x, y in batches:
            assert x.shape == y.shape == (8, 64) and x.dtype == np.int32
            for row, target in zip(x, y, strict=True):
                assert bytes(row.tolist() + [target[-1]]) in text
                assert np.array_equal(row[1:], target[:-1])
                seen.add(bytes(row.tolist()))
    assert len(seen) > 110  # 120 windows at random places of 428 KB.


def test_batches_are_a_function_of_seed_epoch_and_index(reference):
    task, data = reference
    one = task.batches(data, batch_size=4, seed=1, steps=3)
    two = task.batches(data, batch_size=4, seed=1, steps=3)
    other = task.batches(data, batch_size=4, seed=2, steps=3)
    one.epoch = two.epoch = other.epoch = 7
    two[0]  # What was drawn before does not matter.
    assert np.array_equal(one[2][0], two[2][0])
    assert not np.array_equal(one[2][0], other[2][0])
    assert not np.array_equal(one[2][0], one[1][0])
    two.epoch = 8
    assert not np.array_equal(one[2][0], two[2][0])


def test_load_is_a_pure_function(reference):
    task, data = reference
    again = ByteText(length=64).load(seed=5)
    assert np.array_equal(again.test.x, data.test.x)
    assert again.description == data.description == json.loads(json.dumps(data.description))
    assert task.model_arguments(data) == {"vocab_size": 256}


def test_a_users_file_is_cut_by_bytes(tmp_path, rng):
    raw = rng.integers(256, size=1000).astype(np.uint8).tobytes()  # Not UTF-8, and fine.
    path = tmp_path / "text.txt"
    path.write_bytes(raw)
    task = ByteText(files=str(path), length=32, holdout=0.2, validation=0.1)
    data = task.load(0)
    assert data.extra["text"].tobytes() == raw[:720]
    assert read_back(data.validation) == raw[720:800]
    assert data.extra["held_out"] == read_back(data.test) == raw[800:]
    assert read_back(task.read(str(path))) == raw


def test_a_folder_is_read_in_sorted_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.md").write_text("second " * 9)
    (tmp_path / "a.txt").write_text("first " * 9)
    (tmp_path / "c.py").write_text("not text")
    data = ByteText(files=str(tmp_path), length=8, validation=0.0).load(0)
    assert data.validation is None and data.held_out is data.test
    text = data.extra["text"].tobytes() + data.extra["held_out"]
    assert text == b"first " * 9 + b"second " * 9


def test_unusable_files_are_refused_with_the_reason(tmp_path):
    empty, short, folder = tmp_path / "empty.txt", tmp_path / "short.txt", tmp_path / "folder"
    empty.touch()
    short.write_text("hello")
    folder.mkdir()
    for path, problem in [
        (tmp_path / "missing.txt", "there is nothing"),
        (empty, "empty text"),
        (folder, "without text files"),
        (short, "5 bytes of text"),
    ]:
        task = ByteText(files=str(path))  # Making a task opens nothing.
        with pytest.raises(ValueError, match=f"{problem}(.|\n)*expected"):
            task.load(0)
    with pytest.raises(ValueError, match="there is nothing"):
        ByteText().read(str(tmp_path / "missing.txt"))
    with pytest.raises(ValueError, match="at least 2"):
        ByteText().scored(b"x")


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"length": 1}, ValueError, "length=1"),
        ({"length": 2.5}, TypeError, "length=2.5"),
        ({"holdout": 0.0}, ValueError, "holdout=0"),
        ({"holdout": 1.0}, ValueError, "holdout=1"),
        ({"validation": "0.1"}, TypeError, "validation='0.1'"),
        ({"stride": 300}, ValueError, "stride=300"),
        ({"stride": 0}, ValueError, "stride=0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, error, problem):
    with pytest.raises(error, match=problem):
        ByteText(**arguments)


def test_text_and_tokens(reference):
    task, _ = reference
    tokens = task.encode("héllo")
    assert tokens.dtype == np.int32 and tokens.tolist() == list("héllo".encode())
    assert task.to_text(tokens) == "héllo"
    assert task.to_text(tokens[:2]) == "h\ufffd"


def test_it_is_built_by_name_and_saved_as_configuration():
    task = ek.registry.tasks.build({"type": "byte_text", "length": 32, "stride": 8})
    assert ek.registry.to_config(task) == {"type": "byte_text", "length": 32, "stride": 8}
    assert ByteText.from_config(task.get_config()).get_config() == task.get_config()
    with pytest.raises(ValueError, match="lenght"):
        ek.registry.tasks.build("byte_text", lenght=32)
