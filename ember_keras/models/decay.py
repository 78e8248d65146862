"""Which weights decay: matrices between features, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import keras

# What shapes a memory or a scale is no map between features: smaller is not simpler there.
_NOT_DECAYED = re.compile(
    r"norm|filter|short_conv|decay|potential|slope|capacitance|conductance|midpoint|bias$|"
    r"(^|[/_])(rate|skip|frequency|log|numerator|denominator|bonus)([/_]|$)"
)


def is_decayed(variable: keras.Variable) -> bool:
    """Whether weight decay applies: matrices between features, and nothing else."""
    return len(variable.shape) >= 2 and not _NOT_DECAYED.search(variable.path)


def decay_groups(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """The trainable weights in two groups: those that weight decay is for, and the others.

    Filters, poles, decay rates, norms, scales and biases are no maps between features: pulling them
    towards zero makes no simpler model, only another memory.

    Args:
        model: keras.Model, built.

    Returns:
        dict of `decay` and `no_decay`, lists of variables that are all of them together.

    Example:

    ```python
    import ember_keras as ek

    model = ek.models.CausalLM(vocab_size=16, width=8, blocks=["hyena", "gated_mlp"])
    model.build((None, None))
    print({group: len(found) for group, found in ek.models.decay_groups(model).items()})
    ```
    """
    if not model.built:
        raise ValueError(
            f"`decay_groups` received the model {model.name!r}, which is not built, expected one "
            "that has its weights. Call it on some data, or `build` it, first."
        )
    groups: dict[str, list[keras.Variable]] = {"decay": [], "no_decay": []}
    for variable in model.trainable_variables:
        groups["decay" if is_decayed(variable) else "no_decay"].append(variable)
    return groups


def exclude_from_decay(optimizer: Any, model: keras.Model) -> Any:
    """Tells an optimizer to leave alone what weight decay is not for; see `decay_groups`.

    Args:
        optimizer: keras.optimizers.Optimizer with a `weight_decay`, before it is built.
        model: keras.Model, built.

    Returns:
        The optimizer.

    Example:

    ```python
    import ember_keras as ek
    import keras

    model = ek.models.CausalLM(vocab_size=16, width=8)
    model.build((None, None))
    optimizer = ek.models.exclude_from_decay(keras.optimizers.AdamW(1e-3), model)
    model.compile(optimizer, "mse")
    ```
    """
    if optimizer.built:
        raise ValueError(
            f"`exclude_from_decay` received the optimizer {optimizer.name!r}, which is built, "
            "expected one that has not begun. Call it before `fit`."
        )
    optimizer.exclude_from_weight_decay(var_list=decay_groups(model)["no_decay"])
    return optimizer
