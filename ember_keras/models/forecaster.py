"""A model of what comes next in a series, with quantiles, and its loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
from keras import ops

from ember_keras import registry
from ember_keras.config import Component
from ember_keras.layers.base import State
from ember_keras.models.base import BLOCK_KINDS, DEFAULT_BLOCKS, require_positive
from ember_keras.models.pooling import initial_pool
from ember_keras.models.summary_models import SummaryModel

_Blocks = list[Annotated[Any, Component(*BLOCK_KINDS)]]
_QUANTILES: Any = (0.1, 0.5, 0.9)


@registry.models.register("forecaster")
class Forecaster(SummaryModel):
    """Gives quantiles of the next values of a series, several steps ahead.

    An input map, a stack of blocks, and a linear head on the last real position that gives all
    steps at once (Wen et al. 2017, arXiv 1711.11053, section 3). The quantiles of a value never
    cross: each is the one below it plus a positive number. With causal blocks it reads a stream:
    `step` gives the forecast after all that was seen so far.

    Args:
        horizon: int >= 1. How many steps ahead.
        num_outputs: int >= 1. How many values a step.
        quantiles: list of float in (0, 1), rising, at least one.
        width: int >= 1. D, the model width.
        blocks: list of names or configurations of `registry.blocks`, `registry.sequence_mixers` or
            `registry.channel_mixers`.
        repeats: int >= 1. How many times the list stands, one after another.
        norm: a name or configuration of `registry.norms`.
        dropout: float in [0, 1), in the blocks and before the head.
        gradient_checkpointing: bool. Whether blocks run again in the backward pass of training, to
            keep less, as in `SequenceModel`.
        from_last: bool. Whether the forecast is the last real value and a difference from it, which
            helps where the level of a series wanders or is another one in use than in training
            (Zeng et al. 2022, arXiv 2205.13504, NLinear). Then F is `num_outputs`.
        depth_scale: bool, as in `SequenceModel`.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Call arguments:
        x: float tensor `(B, T, F)`, or a dict of it (`x`) with `mask`, as `fit` takes it.
        state, mask, training, return_state: those of every sequence mixer. It takes no
            `segment_ids`.

    Output shape: `(B, horizon, num_outputs, Q)` for Q quantiles.

    Example:

    ```python
    import numpy as np
    import ember_keras as ek

    model = ek.models.Forecaster(horizon=4, width=16, blocks=["lru", "mlp"])
    print(model(np.ones((2, 40, 1), "float32")).shape)  # (2, 4, 1, 3)
    model.compile("adam", ek.models.PinballLoss(model.quantiles))
    ```
    """

    def __init__(
        self,
        horizon: int = 1,
        num_outputs: int = 1,
        quantiles: list[float] = _QUANTILES,
        width: int = 64,
        blocks: _Blocks = DEFAULT_BLOCKS,
        repeats: int = 1,
        norm: Annotated[Any, Component("norms")] = "rms_norm",
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        from_last: bool = False,
        depth_scale: bool = False,
        **kwargs: Any,
    ):
        quantiles = checked_quantiles("Forecaster", quantiles)
        outputs = max(horizon, 1) * max(num_outputs, 1) * len(quantiles)
        super().__init__(
            outputs,
            width,
            blocks,
            repeats,
            norm,
            dropout,
            "last",
            None,
            gradient_checkpointing=gradient_checkpointing,
            depth_scale=depth_scale,
            **kwargs,
        )
        require_positive(self, horizon=horizon, num_outputs=num_outputs)
        self.horizon = horizon
        self.num_outputs = num_outputs
        self.quantiles = quantiles
        self.from_last = self._adds_last = from_last

    def build(self, input_shape: Any) -> None:
        features = self._input_shape(input_shape)[-1]
        if self.from_last and features not in (None, self.num_outputs):
            raise ValueError(
                f"`Forecaster` received from_last=True and an input of {features} features, "
                f"expected num_outputs={self.num_outputs} of them: the forecast is added to the "
                "last of these values. Forecast all features, or use from_last=False."
            )
        super().build(input_shape)

    def initial_state(self, batch_size: int, max_length: int | None = None) -> State:
        state = super().initial_state(batch_size, max_length)
        if not self.from_last:
            return state
        last = initial_pool(batch_size, self.num_outputs, "last", self.compute_dtype)
        return {**state, "last": last}

    def _shaped(self, answer: Any) -> Any:
        sizes = (self.horizon, self.num_outputs, len(self.quantiles))
        answer = ops.reshape(answer, (-1, *sizes))
        rises = ops.softplus(answer[..., 1:])
        return ops.cumsum(ops.concatenate([answer[..., :1], rises], axis=-1), axis=-1)

    def _output_spec(self, x: Any) -> Any:
        spec = super()._output_spec(x)
        sizes = (self.horizon, self.num_outputs, len(self.quantiles))
        return keras.KerasTensor((spec.shape[0], *sizes), dtype=spec.dtype)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("pooling")
        config.pop("vocab_size")
        own = {"horizon": self.horizon, "num_outputs": self.num_outputs}
        own["from_last"] = self.from_last
        return {**config, **own, "quantiles": list(self.quantiles)}


@keras.saving.register_keras_serializable(package="ember_keras")
class PinballLoss(keras.losses.Loss):
    """The loss whose least value a quantile has: `max(q (y - z), (q - 1) (y - z))`.

    The mean over the quantiles, for a `Forecaster` (Koenker & Bassett 1978,
    doi 10.2307/1913643).

    Args:
        quantiles: list of float in (0, 1), rising; those of the model.
        reduction: str or None, as of any Keras loss.
        name: str.
        **kwargs: `dtype`, as of any Keras loss.

    Call arguments:
        y_true: float tensor `(B, horizon, num_outputs)`.
        y_pred: float tensor `(B, horizon, num_outputs, Q)`.

    Example:

    ```python
    import ember_keras as ek
    import numpy as np

    loss = ek.models.PinballLoss([0.1, 0.5, 0.9])
    print(float(loss(np.ones((1, 1, 1)), np.array([[[[0.0, 1.0, 2.0]]]]))))  # 0.0667
    ```
    """

    def __init__(
        self,
        quantiles: list[float] = _QUANTILES,
        reduction: str | None = "sum_over_batch_size",
        name: str = "pinball",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.quantiles = checked_quantiles("PinballLoss", quantiles)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return pinball(y_true, y_pred, self.quantiles)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantiles": self.quantiles}


@keras.saving.register_keras_serializable(package="ember_keras")
class ForecastMetric(keras.metrics.Mean):
    """A figure of forecasts in quantiles, the mean over all values that were asked for.

    - "pinball": the pinball loss, the mean over the quantiles;
    - "absolute_error": of the quantile nearest to the median;
    - "coverage": the fraction of values from the lowest quantile to the highest. With quantiles 0.1
      to 0.9 it is 0.8 where the model knows how sure it is.

    Args:
        figure: "pinball", "absolute_error" or "coverage".
        quantiles: list of float in (0, 1), rising; those of the model.
        name: str or None, `figure` where it is None.
        **kwargs: `dtype`, as of any Keras metric.

    Call arguments:
        y_true: float tensor `(B, horizon, num_outputs)`.
        y_pred: float tensor `(B, horizon, num_outputs, Q)`.
        sample_weight: float tensor, `(B,)` or of the shape of `y_true`, or None.

    Example:

    ```python
    import ember_keras as ek
    import numpy as np

    metric = ek.models.ForecastMetric("coverage", [0.1, 0.5, 0.9])
    forecast = np.tile([0.0, 1.0, 2.0], (1, 2, 1, 1))  # Two steps ahead.
    metric.update_state(np.array([[[1.0], [5.0]]]), forecast)
    print(float(metric.result()))  # 0.5
    ```
    """

    def __init__(
        self,
        figure: Literal["pinball", "absolute_error", "coverage"] = "pinball",
        quantiles: list[float] = _QUANTILES,
        name: str | None = None,
        **kwargs: Any,
    ):
        if figure not in _FIGURES:
            raise ValueError(
                f"`ForecastMetric` received figure={figure!r}, expected one of "
                f"{', '.join(map(repr, _FIGURES))}. Use one of them."
            )
        super().__init__(name=name or figure, **kwargs)
        self.figure = figure
        self.quantiles = checked_quantiles("ForecastMetric", quantiles)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_pred = ops.cast(y_pred, self.dtype)
        y_true = ops.cast(y_true, self.dtype)
        values = _FIGURES[self.figure](y_true, y_pred, self.quantiles)
        return super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "figure": self.figure, "quantiles": self.quantiles}


def _absolute_error(y_true: Any, y_pred: Any, quantiles: list[float]) -> Any:
    middle = min(range(len(quantiles)), key=lambda i: abs(quantiles[i] - 0.5))
    return ops.abs(y_true - y_pred[..., middle])


def _coverage(y_true: Any, y_pred: Any, quantiles: list[float]) -> Any:
    inside = ops.logical_and(y_true >= y_pred[..., 0], y_true <= y_pred[..., -1])
    return ops.cast(inside, y_pred.dtype)


def pinball(y_true: Any, y_pred: Any, quantiles: list[float]) -> Any:
    """The pinball loss `(B, horizon, num_outputs)`, the mean over the quantiles."""
    y_pred = ops.convert_to_tensor(y_pred)
    q = ops.convert_to_tensor(quantiles, dtype=y_pred.dtype)
    error = ops.expand_dims(ops.cast(y_true, y_pred.dtype), -1) - y_pred
    return ops.mean(ops.maximum(q * error, (q - 1) * error), axis=-1)


_FIGURES = {"pinball": pinball, "absolute_error": _absolute_error, "coverage": _coverage}


def checked_quantiles(owner: str, quantiles: Any) -> list[float]:
    """The quantiles as a list; refused where they are none, or do not rise."""
    found = [float(q) for q in quantiles]
    rising = all(a < b for a, b in zip(found, found[1:], strict=False))
    if not found or not rising or not all(0 < q < 1 for q in found):
        raise ValueError(
            f"`{owner}` received quantiles={list(quantiles)}, expected rising numbers between 0 "
            "and 1, at least one. Use e.g. [0.1, 0.5, 0.9]."
        )
    return found
