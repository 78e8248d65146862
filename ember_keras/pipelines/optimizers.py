"""Optimizers from settings."""

from __future__ import annotations

import keras

from ember_keras.models.decay import exclude_from_decay
from ember_keras.pipelines.settings import TrainingSettings


def make_optimizer(settings: TrainingSettings, model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer of `settings` for a built `model`."""
    arguments = {
        "learning_rate": settings.learning_rate,
        "global_clipnorm": settings.clipnorm,
        "weight_decay": settings.weight_decay or None,
    }
    classes = {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "sgd": keras.optimizers.SGD,
        "lion": keras.optimizers.Lion,
    }
    if settings.optimizer == "sgd":
        arguments["momentum"] = 0.9
    elif settings.beta_2 is not None:
        arguments["beta_2"] = settings.beta_2
    if settings.optimizer == "adamw" and not settings.weight_decay:
        arguments["weight_decay"] = 0.0
    optimizer = classes[settings.optimizer](**arguments)
    if settings.weight_decay:
        exclude_from_decay(optimizer, model)
    return optimizer
