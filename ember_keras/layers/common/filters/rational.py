"""The impulse response of a rational transfer function."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ember_keras import registry
from ember_keras.backend import pad
from ember_keras.layers.base import wide
from ember_keras.layers.common.filters.base import Filter
from ember_keras.ops.engines.fft_conv import fft_conv


@registry.filters.register("rtf")
class RationalFilter(Filter):
    """The impulse response of a rational transfer function, a separate one for each channel.

    Any linear state-space model of `order` states has one, and needs no states for it: a handful of
    coefficients draws a filter that never ends.

    `sum_s k_s z^-s = (b_1 z^-1 + .. + b_n z^-n) / (1 + a_1 z^-1 + .. + a_n z^-n)`
    (Parnichkun et al. 2024, arXiv 2405.06147, equation 4; its term h_0 is the skip weight of the
    convolution). The paper evaluates the quotient on a circle of as many points as there are
    positions, so that what lies beyond them wraps around, and a tap depends on the length. Here
    the quotient is the power series itself. With g the series of 1 / a, the taps n + j of g, of
    which the first n are known, are `sum_{i < order} e_i g_{j - i}` with
    `e_i = -sum_{m > i} a_m g_{n + i - m}`: every pass doubles their number, and a step of
    Newton's, `g + g (1 - a g)`, takes back its rounding. The cost is L (`order` + log L) in all.

    The denominator starts at zero, with every pole at the origin. Nothing holds the poles inside
    the circle in training: `sum_m |a_m| < 1` is enough, and with a pole outside of it the filter
    grows with the position.

    Args:
        order: int >= 1. n, the number of states of the model that it stands for.
        **kwargs: `name`, `dtype` and `trainable`, as of any Keras layer.

    Example:

    ```python
    import ember_keras as ek

    filter = ek.layers.RationalFilter(order=4)
    filter.build((8,))
    print(filter.taps(100).shape)  # (100, 8)
    ```
    """

    def __init__(self, order: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        if order < 1:
            raise ValueError(f"`RationalFilter` received order={order}, expected at least 1.")
        self.order = order

    def build(self, input_shape: Any) -> None:
        shape = (self.order, input_shape[-1])
        normal = keras.initializers.RandomNormal(stddev=self.order**-0.5)
        self.numerator = self.add_weight(shape, normal, name="numerator", autocast=False)
        self.denominator = self.add_weight(shape, "zeros", name="denominator", autocast=False)
        super().build(input_shape)

    def taps(self, length: int) -> Any:
        b, a = wide(self.numerator), wide(self.denominator)
        one = ops.ones_like(a[:1])
        series, monic = one, ops.concatenate([one, a], axis=0)
        while series.shape[0] < length:
            known = int(series.shape[0])
            reach = min(self.order, known)
            # What a times the known part leaves beyond it, and must not.
            tail = pad(series[known - reach :], ((0, reach), (0, 0)))
            excess = _times(tail, monic)[reach:]
            series = ops.concatenate([series, _times(series, -excess)], axis=0)
            # Slow poles make much of rounding: a step of Newton's takes it back each time.
            residual = pad(one, ((0, 2 * known - 1), (0, 0))) - _times(series, monic)
            series = series + _times(series, residual)
        delayed = pad(b, ((1, 0), (0, 0)))
        return _times(series[:length], delayed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order}


def _times(series: Any, taps: Any) -> Any:
    """The product of two power series, to the length of the first."""
    return fft_conv(series[None], taps)[0]
