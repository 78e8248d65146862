"""In-context recall: look up a key that was bound to a value earlier in the sequence."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ember_keras import registry
from ember_keras.tasks.base import Split, Task, TaskData
from ember_keras.tasks.checks import at_least, fraction


@registry.tasks.register("in_context_recall")
class InContextRecall(Task):
    """Synthetic key-value recall, plain or noisy: the model answers each key seen before.

    The in-context recall and noisy recall tasks of MAD (Poli et al. 2024, "Mechanistic Design and
    Scaling of Hybrid Architectures", arXiv:2403.17844). A sequence is pairs of a key and a value; a
    key has one value within a sequence and another in the next, so that the answers stand in the
    context and nowhere else. At a key that the sequence has shown before, the model must say its
    value. The last key is always such a one. A fraction of the pairs may be noise: two tokens out
    of a vocabulary of their own.

    Tokens, from 0: keys, values, noise, and with `multi_query=False` one marker that stands before
    the last key. Targets are next tokens; `sample_weight` is 1 at the keys that are asked and 0
    everywhere else. Compared with MAD's own generator the sequence keeps its last value, as a
    position of weight 0, so that it is `length` long.

    Args:
        vocab_size: int, all tokens. Keys and values share what noise and marker leave, half each.
        length: int, tokens in a sequence, even.
        multi_query: bool, whether every key seen before is asked, or only the last one.
        noise: float, the fraction of pairs that are noise.
        noise_vocab_size: int, how many of the tokens are noise; MAD's noisy task has 16 of 32.
        train_samples: int.
        validation_samples: int, 0 for none.
        test_samples: int.
        train_targets: "answers", or "all" to train on every next token, as MAD does; only answers
            are scored in either case.

    Example:

    ```python
    import ember_keras as ek

    task = ek.registry.tasks.build("in_context_recall", length=32, train_samples=100)
    data = task.load(seed=0)
    print(data.train.x.shape, task.model_arguments(data))  # (100, 32) {'vocab_size': 16}
    print(data.test.y[data.test.sample_weight > 0][:5])  # the first five answers
    ```
    """

    kind = "language_modeling"
    main_metric = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        vocab_size: int = 16,
        length: int = 128,
        multi_query: bool = True,
        noise: float = 0.0,
        noise_vocab_size: int = 0,
        train_samples: int = 12800,
        validation_samples: int = 1280,
        test_samples: int = 1280,
        train_targets: Literal["answers", "all"] = "answers",
    ):
        self.vocab_size = at_least(2, vocab_size=vocab_size)
        self.length = at_least(4, length=length)
        self.multi_query = bool(multi_query)
        self.noise = fraction(noise=noise)
        self.noise_vocab_size = at_least(0, noise_vocab_size=noise_vocab_size)
        self.train_samples = at_least(1, train_samples=train_samples)
        self.validation_samples = at_least(0, validation_samples=validation_samples)
        self.test_samples = at_least(1, test_samples=test_samples)
        if train_targets not in ("answers", "all"):
            raise ValueError(
                f"Received train_targets={train_targets!r}; expected 'answers' or 'all'. Use "
                "'answers' to train on what is scored."
            )
        self.train_targets = train_targets
        if length % 2:
            raise ValueError(
                f"Received length={length}; expected an even number, as a sequence is pairs of a "
                f"key and a value. Use {length + 1}."
            )
        if self.noise and not noise_vocab_size:
            raise ValueError(
                f"Received noise={noise} with noise_vocab_size=0; expected at least 1 token for "
                "the noise. Use e.g. vocab_size=32, noise_vocab_size=16."
            )
        if (vocab_size - noise_vocab_size - (not multi_query)) // 2 < 1:
            raise ValueError(
                f"Received vocab_size={vocab_size} with noise_vocab_size={noise_vocab_size}; "
                f"expected at least {noise_vocab_size + 2 + (not multi_query)}, for one key and "
                "one value. Raise `vocab_size`."
            )

    def load(self, seed: int) -> TaskData:
        """All splits, each from its own stream of the seed."""
        streams = np.random.SeedSequence(at_least(0, seed=seed)).spawn(3)
        train, validation, test = (np.random.default_rng(stream) for stream in streams)
        return TaskData(
            train=self.generate(train, self.train_samples, targets=self.train_targets),
            validation=(
                self.generate(validation, self.validation_samples)
                if self.validation_samples
                else None
            ),
            test=self.generate(test, self.test_samples),
            description={
                "source": "generated",
                "vocab_size": self.vocab_size,
                "length": self.length,
                "train_samples": self.train_samples,
                "validation_samples": self.validation_samples,
                "test_samples": self.test_samples,
                "keys": self.sizes()[0],
                "values": self.sizes()[1],
                "unit": "fraction of answers that are right",
            },
        )

    def sizes(self) -> tuple[int, int]:
        """How many tokens are keys, and how many are values."""
        paired = self.vocab_size - self.noise_vocab_size - (not self.multi_query)
        return paired // 2, paired - paired // 2

    def generate(
        self,
        rng: np.random.Generator,
        samples: int,
        targets: Literal["answers", "all"] = "answers",
    ) -> Split:
        """Draws sequences: x, y `(samples, length)` int32, sample_weight the same in float32.

        Args:
            rng: numpy Generator, the only source of chance.
            samples: int.
            targets: "answers", or "all" for weight 1 at every next token.
        """
        keys, values = self.sizes()
        pairs = self.length // 2
        rows = np.arange(samples)
        key = rng.integers(keys, size=(samples, pairs))
        value_of = keys + rng.integers(values, size=(samples, keys))
        noisy = rng.random((samples, pairs)) < self.noise
        noisy[rows, rng.integers(pairs - 1, size=samples)] = False  # One key at least is bound...
        noisy[:, -1] = False
        shown = (key[:, :, None] == np.arange(keys)) & ~noisy[:, :, None]
        shown[:, -1] = False
        seen_before = np.cumsum(shown, axis=1) - shown > 0
        # ... and the last key is one of those bound, each as likely as another.
        key[:, -1] = np.where(seen_before[:, -1], rng.random((samples, keys)), -1.0).argmax(axis=-1)
        asked = np.take_along_axis(seen_before, key[:, :, None], axis=2)[:, :, 0] & ~noisy
        if not self.multi_query:
            asked[:, :-1] = False
        tokens = np.stack([key, np.take_along_axis(value_of, key, axis=1)], axis=-1)
        weight = np.stack([asked, np.zeros_like(asked)], axis=-1).reshape(samples, -1)
        if self.noise:
            first = keys + values
            noise = rng.integers(first, first + self.noise_vocab_size, size=tokens.shape)
            tokens = np.where(noisy[:, :, None], noise, tokens)
        tokens = tokens.reshape(samples, -1).astype(np.int32)
        if not self.multi_query:
            tokens = np.insert(tokens, -2, self.vocab_size - 1, axis=1)
            weight = np.insert(weight, -2, False, axis=1)
        known = tokens.shape[1] - 1  # With a marker, the last value is a target only.
        y = np.zeros((samples, self.length), np.int32)
        y[:, :known] = tokens[:, 1:]
        if targets == "all":
            weight = np.broadcast_to(np.arange(self.length) < known, y.shape)
        weight = weight[:, : self.length].astype(np.float32)
        return Split(tokens[:, : self.length], y, weight)

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Accuracy of guessing any value, which needs no memory."""
        return {"guessing": 1 / data.description["values"]}
