"""What a trained model is for: scoring, predicting, and writing on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ember_keras import backend, registry
from ember_keras.models import CausalLM
from ember_keras.pipelines import figures
from ember_keras.pipelines.errors import InputError
from ember_keras.pipelines.opening import Opened, open_model
from ember_keras.pipelines.settings import PositiveInt, SampleSettings

_SAMPLE = SampleSettings()


@registry.pipelines.register("evaluation")
class Evaluation:
    """Scores a trained model, on its task's held-out data or on a file.

    Args:
        batch_size: int >= 1. Samples a batch; it does not change the figures.
    """

    def __init__(self, batch_size: PositiveInt = 32):
        self.batch_size = batch_size

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this pipeline again."""
        return {"batch_size": self.batch_size}

    def run(self, model: str | Path, source: str | None = None) -> dict[str, Any]:
        """Scores.

        Args:
            model: str or Path. A run folder or a `.keras` file.
            source: str or None. A file or folder of data with targets, the name of a task, or None
                for the task that the model was trained on.

        Returns:
            dict of `held_out` (figure -> value), `baselines`, `main_metric`, `samples`, `backend`.
        """
        opened = open_model(model)
        if source is not None and source in registry.tasks and not Path(source).exists():
            opened, source = opened.with_task(source), None
        task = opened.require_task()
        if source is None:
            data = opened.load()
            baselines = task.baselines(data)
        else:
            data = opened.data_of(opened.read(source))
            baselines = {}
        opened.model.compile(**task.compile_arguments())
        return {
            "main_metric": task.main_metric,
            "held_out": figures.score(opened.model, task, data, self.batch_size),
            "baselines": baselines,
            "samples": len(data.held_out),
            "backend": backend.name(),
        }


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says of a file.

    Args:
        values: array `(N, ...)`. Class names, next tokens, or numbers in the target's unit.
        outputs: array `(N, ...)`. The model's own outputs, e.g. logits.
    """

    values: np.ndarray
    outputs: np.ndarray


@registry.pipelines.register("prediction")
class Prediction:
    """Predicts for every sample of a file.

    Args:
        batch_size: int >= 1. Samples a batch; it does not change the predictions.
    """

    def __init__(self, batch_size: PositiveInt = 32):
        self.batch_size = batch_size

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this pipeline again."""
        return {"batch_size": self.batch_size}

    def run(self, model: str | Path, source: str) -> Predictions:
        """Predicts.

        Args:
            model: str or Path. A run folder or a `.keras` file.
            source: str. A file, a folder of text files, or a task's name, for its held-out data.
        """
        opened = open_model(model)
        if source in registry.tasks and not Path(source).exists():
            opened = opened.with_task(source)
            data = opened.load()
        else:
            data = opened.data_of(opened.read(source))
        split = data.held_out
        outputs = opened.model.predict(
            split.x, batch_size=figures.even_batch_size(len(split), self.batch_size), verbose=0
        )
        outputs = np.asarray(outputs)
        values = opened.require_task().decode(outputs, data.description)
        return Predictions(values, outputs)


@registry.pipelines.register("generation")
class Generation:
    """Lets a model of the next token continue a prompt.

    Args:
        sample: SampleSettings.
        seed: int or None. The same seed writes the same text.
        stop: list of str or None. The text ends before the first of them.
    """

    def __init__(
        self,
        sample: SampleSettings = _SAMPLE,
        seed: int | None = None,
        stop: list[str] | None = None,
    ):
        self.sample = sample
        self.seed = seed
        self.stop = stop

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this pipeline again."""
        return {
            "sample": dataclasses.asdict(self.sample),
            "seed": self.seed,
            "stop": self.stop,
        }

    def run(
        self, model: str | Path, on_token: Callable[[bytes], None] | None = None
    ) -> dict[str, Any]:
        """Generates.

        Args:
            model: str or Path. A run folder or a `.keras` file with a causal model.
            on_token: callable or None. Called with the prompt, then each new piece, as bytes of
                whole characters.

        Returns:
            dict of `prompt` and `text` (what follows, up to a stop string), and `tokens` (ids, the
            prompt's and those of the stop string among them).
        """
        opened = open_model(model)
        if not isinstance(opened.model, CausalLM):
            raise InputError(
                f"{opened.path} holds a {type(opened.model).__name__}; expected a causal_lm, as "
                "only a model of the next token can write on. Use `predict`."
            )
        encode, show = _coding(opened)
        prompt = encode(self.sample.prompt)
        if on_token is not None:
            on_token(self.sample.prompt.encode("utf-8"))
        stream = opened.model.stream(
            prompt,
            self.sample.length,
            seed=self.seed,
            stop=self.stop,
            decode=show,
            **self.sample.drawing(),
        )
        written = []
        for piece in stream:
            written.append(piece.text)
            if on_token is not None:
                on_token(piece.text.encode("utf-8"))
        return {
            "prompt": self.sample.prompt,
            "text": "".join(written),
            "tokens": [int(token) for token in stream.tokens[0]],
        }


def _coding(
    opened: Opened,
) -> tuple[Callable[[str], np.ndarray], Callable[[list[int]], bytes]]:
    """How text becomes tokens and back: bytes for a model of bytes, else numbers."""
    is_text = hasattr(opened.task, "to_text") if opened.task else opened.model.vocab_size == 256
    if is_text:
        return (
            lambda text: np.frombuffer(text.encode("utf-8"), np.uint8).astype("int32"),
            lambda tokens: np.asarray(tokens).astype(np.uint8).tobytes(),
        )
    return _numbers, lambda tokens: "".join(f"{token} " for token in tokens).encode()


def _numbers(text: str) -> np.ndarray:
    try:
        return np.array([int(word) for word in text.replace(",", " ").split()], "int32")
    except ValueError:
        raise InputError(
            f"Received the prompt {text!r}; this model's tokens are no text, so expected their "
            "numbers, e.g. '3 9 3'."
        ) from None
