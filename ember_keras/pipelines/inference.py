"""What a trained model is for: scoring, predicting, and writing on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ember_keras import backend, registry
from ember_keras.models import CausalLM
from ember_keras.models.text import check_stop, whole_text
from ember_keras.pipelines import figures
from ember_keras.pipelines.errors import InputError
from ember_keras.pipelines.opening import Opened, open_model
from ember_keras.pipelines.settings import PositiveInt, SampleSettings

_SAMPLE = SampleSettings()
DRAWN = ("top_k", "top_p", "min_p")
"""What says how tokens are drawn, beside the temperature, which always has a value."""


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
        beams: int >= 1 or None. With a number, the likeliest text that a search with as many beams
            finds, in the place of one that is drawn.
        length_penalty: float or None. Of the search, 1 when None: above 0 favours longer texts.
    """

    def __init__(
        self,
        sample: SampleSettings = _SAMPLE,
        seed: int | None = None,
        stop: list[str] | None = None,
        beams: PositiveInt | None = None,
        length_penalty: float | None = None,
    ):
        self.sample = sample
        self.seed = seed
        self.stop = stop
        self.beams = beams
        self.length_penalty = length_penalty
        drawn = {**{name: getattr(sample, name) for name in DRAWN}, "seed": seed}
        given = [name for name, value in drawn.items() if value is not None]
        if beams is not None and given:
            raise InputError(
                f"Received beams={beams} and {given[0]}={drawn[given[0]]}; expected one of them, "
                "as a beam search draws nothing."
            )
        if beams is None and length_penalty is not None:
            raise InputError(
                f"Received length_penalty={length_penalty} without beams; expected both, as only "
                "a beam search compares texts of different lengths."
            )

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this pipeline again."""
        return {
            "sample": dataclasses.asdict(self.sample),
            "seed": self.seed,
            "stop": self.stop,
            "beams": self.beams,
            "length_penalty": self.length_penalty,
        }

    def run(
        self, model: str | Path, on_token: Callable[[bytes], None] | None = None
    ) -> dict[str, Any]:
        """Generates.

        Args:
            model: str or Path. A run folder or a `.keras` file with a causal model.
            on_token: callable or None. Called with the prompt, then each new piece, as bytes of
                whole characters; a beam search has one piece, at the end.

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
        if self.beams is not None:
            text, tokens = self._search(opened.model, prompt, self.beams, show)
            if on_token is not None:
                on_token(text.encode("utf-8"))
            return {"prompt": self.sample.prompt, "text": text, "tokens": tokens.tolist()}
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

    def _search(
        self, model: CausalLM, prompt: np.ndarray, beams: int, show: Any
    ) -> tuple[str, np.ndarray]:
        """The text that a beam search finds, and all tokens."""
        tokens = model.beam_search(
            prompt,
            self.sample.length,
            beams=beams,
            length_penalty=1.0 if self.length_penalty is None else self.length_penalty,
            repetition_penalty=self.sample.repetition_penalty,
            stop=self.stop,
            decode=show,
        )
        new = tokens[len(prompt) :]
        return whole_text(show, prompt, new, check_stop(self.stop, show)), tokens


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
