"""The sections of an experiment's configuration."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained.

    Args:
        epochs: int >= 1. Epochs at most.
        batch_size: int >= 1. Samples a batch.
        steps_per_epoch: int >= 1 or None. Batches an epoch; None takes the task's own number.
        max_minutes: float > 0 or None. Training ends after the batch at which this time is over.
        optimizer: "adamw", "adam", "sgd" or "lion".
        learning_rate: float > 0. The peak of the schedule.
        schedule: "cosine", "linear" or "constant". It follows the steps or the time, whichever is
            further along.
        warmup_steps: int >= 0. Steps over which the learning rate climbs to its peak.
        final_share: float, 0 to 1. The share of the learning rate left at the end.
        weight_decay: float >= 0. Decoupled; never on norms, biases, filters and decay rates.
        beta_2: float in (0, 1) or None. The second moment's decay of adamw, adam and lion.
        clipnorm: float > 0 or None. The largest norm that all gradients together may have.
        dtype: "float32", "mixed_bfloat16" or "mixed_float16".
        jit: bool or None. Whether the backend compiles the step; None leaves it to Keras.
        keep: "last" or "best". Which epoch `model.keras` holds; best by the validation loss.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    steps_per_epoch: PositiveInt | None = None
    max_minutes: PositiveFloat | None = None
    optimizer: Literal["adamw", "adam", "sgd", "lion"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_share: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    beta_2: Annotated[float, Field(gt=0, lt=1)] | None = None
    clipnorm: PositiveFloat | None = 1.0
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit: bool | None = None
    keep: Literal["last", "best"] = "last"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The text that a language model writes after training.

    Args:
        prompt: str. What it continues; at least one character.
        length: int >= 1. Tokens to add.
        temperature: float >= 0. 0 takes the likeliest token.
        top_k: int >= 1 or None. Only the k likeliest tokens are drawn.
        top_p: float or None. Only the likeliest tokens of this probability together are drawn.
        min_p: float or None. Only tokens of at least this share of the likeliest one's probability
            are drawn.
        repetition_penalty: float > 0 or None. Above 1 makes tokens that stand before less likely.
    """

    prompt: Annotated[str, Field(min_length=1)] = "The "
    length: PositiveInt = 512
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.8
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: PositiveFloat | None = None

    def drawing(self) -> dict[str, Any]:
        """How tokens are drawn, as arguments of `CausalLM.generate`."""
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        return {name: getattr(self, name) for name in names}


def plain(settings: Any) -> dict[str, Any]:
    """A section as plain data."""
    return dataclasses.asdict(settings)
