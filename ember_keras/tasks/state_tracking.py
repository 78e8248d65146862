"""State tracking: say, at each position, the product of all that came so far."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from ember_keras import registry
from ember_keras.tasks.base import Split, Task, TaskData
from ember_keras.tasks.checks import at_least

GROUPS = {"z2": 2, "s3": 3, "a4": 4, "s4": 4, "a5": 5, "s5": 5}
"""Parity, and the permutations of some things, all or the even ones."""


@registry.tasks.register("state_tracking")
class StateTracking(Task):
    """The word problem of a group: a class at every position, for a `token_classifier`.

    Tokens are elements of a group, and the class at a position is the product of all elements up to
    it (Merrill et al. 2024, arXiv 2404.08819, section 4). Parity (`z2`) needs one bit of memory
    that each token may flip; `s5` and `a5`, the smallest groups that are not solvable, are beyond
    attention and diagonal recurrences of any fixed depth.

    Args:
        group: "z2", "s3", "a4", "s4", "a5" or "s5".
        length: int, tokens in a sequence.
        train_samples: int.
        validation_samples: int, 0 for none.
        test_samples: int.

    Example:

    ```python
    import ember_keras as ek

    task = ek.registry.tasks.build("state_tracking", group="s3", length=16, train_samples=100)
    data = task.load(seed=0)
    print(data.train.x.shape, task.model_arguments(data))  # (100, 16) {'num_classes': 6, ...
    ```
    """

    kind = "token_classification"
    main_metric = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        group: Literal["z2", "s3", "a4", "s4", "a5", "s5"] = "s3",
        length: int = 64,
        train_samples: int = 12800,
        validation_samples: int = 1280,
        test_samples: int = 1280,
    ):
        if group not in GROUPS:
            raise ValueError(
                f"Received group={group!r}; expected one of {', '.join(GROUPS)}. Use 'z2' for "
                "parity."
            )
        self.group = group
        self.length = at_least(1, length=length)
        self.train_samples = at_least(1, train_samples=train_samples)
        self.validation_samples = at_least(0, validation_samples=validation_samples)
        self.test_samples = at_least(1, test_samples=test_samples)

    def load(self, seed: int) -> TaskData:
        """All splits, each from its own stream of the seed."""
        table = products(self.group)
        streams = np.random.SeedSequence(at_least(0, seed=seed)).spawn(3)
        sizes = (self.train_samples, self.validation_samples, self.test_samples)
        train, validation, test = (
            self._generate(np.random.default_rng(stream), size, table) if size else None
            for stream, size in zip(streams, sizes, strict=True)
        )
        if train is None:
            raise ValueError("Received train_samples=0; expected at least 1.")
        description = {
            "source": "generated",
            "group": self.group,
            "vocab_size": len(table),
            "num_classes": len(table),
            "length": self.length,
            "unit": "fraction of positions that are right",
        }
        return TaskData(train, validation, test, description)

    def _generate(self, rng: np.random.Generator, samples: int, table: np.ndarray) -> Split:
        x = rng.integers(len(table), size=(samples, self.length)).astype(np.int32)
        y = np.empty_like(x)
        state = np.zeros(samples, np.int32)  # Element 0 is the identity.
        for t in range(self.length):
            state = table[state, x[:, t]]
            y[:, t] = state
        return Split(x, y)

    def model_arguments(self, data: TaskData) -> dict[str, int]:
        """`num_classes` and `vocab_size`: the elements of the group."""
        return {key: data.description[key] for key in ("num_classes", "vocab_size")}

    def baselines(self, data: TaskData) -> dict[str, float]:
        """Accuracy of guessing any element."""
        return {"guessing": 1 / data.description["num_classes"]}


def products(group: str) -> np.ndarray:
    """The table `(n, n)` of products of a group's elements, the first of which is the identity."""
    elements = list(itertools.permutations(range(GROUPS[group])))
    if group.startswith("a"):
        elements = [e for e in elements if _is_even(e)]
    place = {element: i for i, element in enumerate(elements)}
    rows = [[place[tuple(b[i] for i in a)] for b in elements] for a in elements]
    return np.array(rows, np.int32)


def _is_even(permutation: tuple[int, ...]) -> bool:
    pairs = itertools.combinations(permutation, 2)
    return sum(a > b for a, b in pairs) % 2 == 0
