"""Filters of long convolutions: what gives `fft_conv` its taps."""

from ember_keras.layers.common.filters.base import Filter
from ember_keras.layers.common.filters.explicit import DecayFilter, ExplicitFilter
from ember_keras.layers.common.filters.implicit import ImplicitFilter
from ember_keras.layers.common.filters.rational import RationalFilter
from ember_keras.layers.common.filters.s4d import S4DFilter

__all__ = [
    "DecayFilter",
    "ExplicitFilter",
    "Filter",
    "ImplicitFilter",
    "RationalFilter",
    "S4DFilter",
]
