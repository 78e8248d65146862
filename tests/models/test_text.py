"""Text out of tokens: characters whole, stop strings met across tokens."""

import numpy as np
import pytest

from ember_keras.models.text import RowText, check_stop

TEXT = "naïve 🌋 – done\n"


def of_bytes(text, stops=(), before=b"start "):
    row = RowText(bytes, np.frombuffer(before, np.uint8), stops)
    pieces = []
    for byte in text.encode():
        pieces.append(row.add(byte))
        if row.ended:
            break
    pieces.append(row.finish())
    return pieces


def like_a_tokenizer(tokens):
    """Bytes, decoded as a tokenizer's `decode` does: a part of a character is U+FFFD."""
    return bytes(tokens).decode("utf-8", errors="replace")


@pytest.mark.parametrize("decode", [bytes, like_a_tokenizer])
@pytest.mark.parametrize("text", [TEXT, TEXT * 12])
def test_no_character_is_cut(decode, text):
    row = RowText(decode, np.frombuffer(b"ab", np.uint8), ())
    pieces = [row.add(byte) for byte in text.encode()]
    assert "".join(pieces) + row.finish() == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert all(len(piece) <= 1 for piece in pieces)


@pytest.mark.parametrize("decode", [bytes, like_a_tokenizer])
def test_what_is_no_text_ends_as_replacement(decode):
    row = RowText(decode, np.array([97]), ())
    pieces = [row.add(byte) for byte in b"a\xf0\x9f"]
    assert pieces == ["a", "", ""] and row.finish() == "\ufffd"
    row = RowText(decode, np.array([97]), ())
    text = "".join(row.add(0x80) for _ in range(300))
    assert len(text + row.finish()) == 300


def test_a_prompt_that_ends_within_a_character():
    assert "".join(of_bytes("x", before="🌋".encode()[:2])) != ""
    row = RowText(bytes, np.frombuffer("🌋".encode()[:3], np.uint8), ())
    assert row.add("🌋".encode()[3]) == "🌋"


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        ("one END two", ("END",), "one "),
        ("one EN", ("END",), "one EN"),
        ("one ENEND", ("END",), "one EN"),
        ("one ab abc", ("abcd", "abc"), "one ab "),
        ("naïve 🌋 x", ("🌋",), "naïve "),
        ("", ("a",), ""),
        ("aab", ("ab", "aa"), ""),
    ],
)
def test_text_ends_before_a_stop_string(text, stops, cut):
    pieces = of_bytes(text, stops)
    assert "".join(pieces) == cut


def test_a_stop_string_may_begin_and_end_within_tokens():
    words = {0: "one ", 1: "two S", 2: "TO", 3: "P three", 4: "four"}
    row = RowText(lambda tokens: "".join(words[t] for t in tokens), np.array([4]), ("STOP",))
    assert [row.add(token) for token in (0, 1, 2)] == ["one ", "two ", ""]
    assert row.add(3) == "" and row.ended and row.finish() == ""


def test_a_tokenizer_that_puts_spaces_between_words():
    row = RowText(lambda tokens: " ".join(f"w{t}" for t in tokens), np.array([4, 5]), ())
    assert [row.add(token) for token in range(40)] == [f" w{t}" for t in range(40)]


@pytest.mark.parametrize(
    ("stop", "decode", "error", "words"),
    [
        ("", bytes, ValueError, "empty string"),
        (["a", ""], bytes, ValueError, "empty string"),
        ("a", None, ValueError, "without `decode`"),
        (b"a", bytes, TypeError, "expected a str"),
        ([1], bytes, TypeError, "expected a str"),
        (5, bytes, TypeError, "expected a str, or a list of them"),
        (None, "bytes", TypeError, "expected a function"),
    ],
)
def test_refused(stop, decode, error, words):
    with pytest.raises(error, match=words):
        check_stop(stop, decode)


def test_a_decode_of_something_else_is_refused():
    with pytest.raises(TypeError, match="returned list"):
        RowText(list, np.array([1]), ())
