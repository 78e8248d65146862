"""Byte-level language modeling of real text, scored on every held-out byte."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np

from ember_keras import registry
from ember_keras.tasks.base import Batches, Kind, Split, Task, TaskData
from ember_keras.tasks.checks import at_least, fraction

SUFFIXES = (".md", ".rst", ".text", ".txt")


@registry.tasks.register("byte_text")
class ByteText(Task):
    """Next-byte prediction on English text: CPython's language reference, or the user's own files.

    With `files=None` the text is `pydoc_data.topics`, the language reference inside every CPython:
    the topics in sorted order, the last tenth of them (by count, rounded, at least one) held out.
    On CPython 3.11 that is 79 topics, 428,092 bytes to learn from and 38,025 held out; other
    versions have other texts. A user's file, or a folder's files in the order of their sorted
    paths, one after the other, is cut by bytes: its end is held out.

    The figure is bits per byte, `log2(e)` times the mean cross-entropy, over every held-out byte
    but the first, each counted once. Windows of `length` bytes start every `stride` bytes, and only
    the positions that no earlier window covers have weight 1. So a byte is predicted from all text
    before it in the first window, and from at least `length - stride + 1` bytes after that. The
    last window is moved back to end with the text; a text shorter than one window is padded on the
    right with zeros of weight 0. `baselines` compresses the same held-out bytes.

    Args:
        files: str or None. A text file (any bytes) or a folder, searched recursively for
            `*.txt`, `*.text`, `*.md` and `*.rst`. None for the language reference.
        length: int, bytes in a window.
        holdout: float, the fraction of the text that is never trained on and reported as `test`.
        validation: float, the fraction at the end of the training text that is taken out of it to
            be watched during training; 0 for none.
        stride: int or None, bytes between the starts of scored windows; None for `length // 2`.

    Example:

    ```python
    import ember_keras as ek

    task = ek.registry.tasks.build("byte_text", length=128)
    data = task.load(seed=0)
    batches = task.batches(data, batch_size=16, seed=0, steps=100)
    x, y = batches[0]  # (16, 128) int32, and the same one byte on
    print(task.model_arguments(data), task.baselines(data))
    ```
    """

    kind: Kind = "language_modeling"
    main_metric = "bits_per_byte"
    higher_is_better = False

    def __init__(
        self,
        files: str | None = None,
        length: int = 256,
        holdout: float = 0.1,
        validation: float = 0.02,
        stride: int | None = None,
    ):
        self.files = files
        self.length = at_least(2, length=length)
        self.holdout = fraction(holdout=holdout)
        if self.holdout == 0:
            raise ValueError(
                "Received holdout=0; expected a fraction above 0, so that there is text to score "
                "on. Use e.g. holdout=0.1."
            )
        self.validation = fraction(validation=validation)
        if stride is not None and at_least(1, stride=stride) > length:
            raise ValueError(
                f"Received stride={stride}; expected at most length={length}, so that no byte is "
                "left out. Lower `stride`, or use None for half of `length`."
            )
        self.stride = stride

    def load(self, seed: int = 0) -> TaskData:
        """The windows and the text; the seed does not matter, as nothing is drawn here."""
        del seed
        if self.files is None:
            text, held_out, source = self._language_reference()
        else:
            text, source = read_text(self.files), str(self.files)
            cut = len(text) - round(len(text) * self.holdout)
            text, held_out = text[:cut], text[cut:]
        watched = round(len(text) * self.validation)
        text, validation = text[: len(text) - watched], text[len(text) - watched :]
        self._check_sizes(source, train=text, validation=validation, held_out=held_out)
        tokens = np.frombuffer(text, np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.int32), self.length + 1)
        windows = windows[:: self.length]
        return TaskData(
            train=Split(windows[:, :-1], windows[:, 1:]),
            validation=self.scored(validation) if watched else None,
            test=self.scored(held_out),
            description={
                "source": source,
                "vocab_size": 256,
                "length": self.length,
                "train_bytes": len(text),
                "validation_bytes": len(validation),
                "held_out_bytes": len(held_out),
                "unit": "bits per byte",
            },
            extra={"text": tokens, "held_out": held_out},
        )

    def _language_reference(self) -> tuple[bytes, bytes, str]:
        from pydoc_data.topics import topics

        names = sorted(topics)
        cut = len(names) - max(1, round(len(names) * self.holdout))
        parts = [topics[name].encode("utf-8") for name in names]
        return b"".join(parts[:cut]), b"".join(parts[cut:]), "pydoc_data.topics"

    def _check_sizes(
        self, source: str, *, train: bytes, validation: bytes, held_out: bytes
    ) -> None:
        if len(train) <= self.length or len(held_out) < 2 or len(validation) == 1:
            total = len(train) + len(validation) + len(held_out)
            raise ValueError(
                f"Received {total} bytes of text from {source}, of which {len(train)} are to learn "
                f"from, {len(validation)} to watch and {len(held_out)} held out; expected at least "
                f"length + 1 = {self.length + 1} to learn from, and 2 in the other parts. Give "
                "more text, or change `length`, `holdout` or `validation`."
            )

    def scored(self, text: bytes) -> Split:
        """Windows that score each byte of `text` but the first exactly once.

        Args:
            text: bytes, at least 2.

        Returns:
            Split of x, y `(N, length)` int32 and sample_weight `(N, length)` float32, whose sum is
            `len(text) - 1`.
        """
        tokens = np.frombuffer(text, np.uint8).astype(np.int32)
        targets = len(tokens) - 1
        if targets < 1:
            raise ValueError(
                f"Received {len(tokens)} bytes to score; expected at least 2, as the first byte "
                "has nothing before it. Give a longer text."
            )
        stride = self.stride or max(1, self.length // 2)
        tokens = np.pad(tokens, (0, max(0, self.length - targets)))
        last = max(0, targets - self.length)
        starts = np.minimum(np.arange(0, last + stride, stride), last)
        # Targets are numbered by their place in `tokens[1:]`; before[i] of them are scored already.
        before = np.concatenate([[0], starts[:-1] + self.length])
        place = starts[:, None] + np.arange(self.length)
        weight = (place >= before[:, None]) & (place < targets)
        return Split(tokens[place], tokens[place + 1], weight.astype(np.float32))

    def compile_arguments(self) -> dict[str, Any]:
        """The cross-entropy as loss and as exact weighted metric `cross_entropy`, in nats."""
        arguments = super().compile_arguments()
        arguments["weighted_metrics"] = arguments["weighted_metrics"][:1]
        return arguments

    def batches(
        self, data: TaskData, *, batch_size: int, seed: int, steps: int | None = None
    ) -> Batches:
        """Windows at random places of the training text, fresh ones each step.

        Args: as `Task.batches`; `steps=None` is about as many bytes as the text has.
        """
        return _RandomWindows(
            {"text": data.extra["text"]},
            length=self.length,
            batch_size=batch_size,
            seed=seed,
            steps=steps,
        )

    def summarize(self, evaluation: dict[str, float], data: TaskData) -> dict[str, float]:
        """`bits_per_byte`, and the cross-entropy in nats that it comes from."""
        figures = super().summarize(evaluation, data)
        return {"bits_per_byte": figures["cross_entropy"] / math.log(2), **figures}

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Bits per byte of `gzip -9`, `bz2 -9` and `xz -9e` on the held-out bytes."""
        text = data.extra["held_out"]
        sizes = {
            "gzip -9": len(gzip.compress(text, 9, mtime=0)),
            "bz2 -9": len(bz2.compress(text, 9)),
            "xz -9e": len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        }
        return {name: 8 * size / len(text) for name, size in sizes.items()}

    def read(self, path: str, description: dict[str, Any] | None = None) -> Split:
        """A text file or folder as scored windows; see `scored`."""
        del description
        return self.scored(read_text(path))

    @staticmethod
    def encode(text: str | bytes) -> np.ndarray:
        """A prompt as tokens, `(T,)` int32."""
        raw = text.encode("utf-8") if isinstance(text, str) else bytes(text)
        return np.frombuffer(raw, np.uint8).astype(np.int32)

    @staticmethod
    def to_text(tokens: np.ndarray) -> str:
        """Tokens `(T,)` as text; bytes that are not UTF-8 become U+FFFD."""
        return np.asarray(tokens).astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class _RandomWindows(Batches):
    """Batches of windows that start anywhere in the text."""

    def __init__(self, arrays: dict[str, np.ndarray | None], *, length: int, **arguments: Any):
        self._length = length
        super().__init__(arrays, **arguments)

    def count_rows(self) -> int:
        return len(self.arrays["text"]) - self._length

    def pass_length(self) -> int:
        return max(1, len(self.arrays["text"]) // (self._length * self.batch_size))

    def draw(self, index: int) -> tuple[np.ndarray, ...]:
        starts = self.rng(index).integers(self.rows, size=self.batch_size)
        places = starts[:, None] + np.arange(self._length + 1)
        windows = self.arrays["text"][places].astype(np.int32)
        return windows[:, :-1], windows[:, 1:]


def read_text(path: str) -> bytes:
    """The bytes of a text file, or of a folder's text files in the order of their sorted paths.

    Raises:
        ValueError: nothing is there, it cannot be read, or it is empty.
    """
    root = Path(path)
    expected = "expected a text file, or a folder with " + ", ".join(f"*{s}" for s in SUFFIXES)
    try:
        if root.is_dir():
            found = sorted(
                file
                for file in root.rglob("*")
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
        else:
            found = [root]
        text = b"".join(file.read_bytes() for file in found)
    except FileNotFoundError:
        raise ValueError(
            f"Received the path {str(path)!r}, where there is nothing; {expected}. Correct the "
            f"path; it is taken from the current folder, {Path.cwd()}."
        ) from None
    except OSError as error:
        raise ValueError(
            f"Received the path {str(path)!r}, which cannot be read ({error.strerror}); "
            f"{expected}. Check its permissions."
        ) from None
    if not found:
        raise ValueError(
            f"Received the folder {str(path)!r} without text files; {expected}. Rename the files, "
            "or name one of them."
        )
    if not text:
        raise ValueError(
            f"Received empty text from {str(path)!r}; {expected}, with text in it. Give a file "
            "that is not empty."
        )
    return text
