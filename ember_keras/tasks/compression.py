"""Compression: bring a whole sequence into one vector, and restore it."""

from __future__ import annotations

import numpy as np

from ember_keras import registry
from ember_keras.tasks.base import Split, Task, TaskData
from ember_keras.tasks.checks import at_least


@registry.tasks.register("compression")
class Compression(Task):
    """Random tokens that an `autoencoder` must restore from the vector at their end.

    The compression task of MAD (Poli et al. 2024, arXiv 2403.17844, section 3.1). Each sequence
    ends with a token of its own, whose position is where the blocks gather the rest; it is not
    scored.

    Args:
        vocab_size: int, all tokens, the last of which ends the sequences.
        length: int, tokens in a sequence with its end.
        train_samples: int.
        validation_samples: int, 0 for none.
        test_samples: int.

    Example:

    ```python
    import ember_keras as ek

    task = ek.registry.tasks.build("compression", length=32, train_samples=100)
    data = task.load(seed=0)
    print(data.train.x.shape, task.model_arguments(data))  # (100, 32) {'vocab_size': 16}
    ```
    """

    kind = "reconstruction"
    main_metric = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        vocab_size: int = 16,
        length: int = 32,
        train_samples: int = 12800,
        validation_samples: int = 1280,
        test_samples: int = 1280,
    ):
        self.vocab_size = at_least(3, vocab_size=vocab_size)
        self.length = at_least(2, length=length)
        self.train_samples = at_least(1, train_samples=train_samples)
        self.validation_samples = at_least(0, validation_samples=validation_samples)
        self.test_samples = at_least(1, test_samples=test_samples)

    def load(self, seed: int) -> TaskData:
        """All splits, each from its own stream of the seed."""
        streams = np.random.SeedSequence(at_least(0, seed=seed)).spawn(3)
        train, validation, test = (np.random.default_rng(stream) for stream in streams)
        description = {
            "source": "generated",
            "vocab_size": self.vocab_size,
            "length": self.length,
            "unit": "fraction of tokens that are restored",
        }
        watched = self._generate(validation, self.validation_samples)
        return TaskData(
            self._generate(train, self.train_samples),
            watched if self.validation_samples else None,
            self._generate(test, self.test_samples),
            description,
        )

    def _generate(self, rng: np.random.Generator, samples: int) -> Split:
        x = rng.integers(self.vocab_size - 1, size=(samples, self.length)).astype(np.int32)
        x[:, -1] = self.vocab_size - 1
        weight = np.ones(x.shape, np.float32)
        weight[:, -1] = 0
        return Split(x, x.copy(), weight)

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Accuracy of guessing any token."""
        return {"guessing": 1 / (data.description["vocab_size"] - 1)}
