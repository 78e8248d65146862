"""Optimizers from settings."""

from __future__ import annotations

import re

import keras

from ember_keras.pipelines.settings import TrainingSettings

# What shapes a memory or a scale is no map between features: smaller is not simpler there.
_NOT_DECAYED = re.compile(r"norm|filter|short_conv|decay|(^|[/_])(rate|skip|frequency|log)([/_]|$)")


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
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.trainable_variables if not is_decayed(v)]
        )
    return optimizer


def is_decayed(variable: keras.Variable) -> bool:
    """Whether weight decay applies: matrices between features, and nothing else."""
    return len(variable.shape) >= 2 and not _NOT_DECAYED.search(variable.path)
