"""Ember Keras layers: sequence mixers, channel mixers, and the filters of long convolutions."""

from ember_keras.layers import norms as norms
from ember_keras.layers.channel_mixing import MLP, ChannelMixer, DenseMixer, GatedMLP
from ember_keras.layers.common.filters import ExplicitFilter, Filter, ImplicitFilter, S4DFilter
from ember_keras.layers.sequence_mixing import (
    HGRN,
    LRU,
    RGLRU,
    Attention,
    FFTConv,
    Hyena,
    Mamba,
    MinGRU,
    MinLSTM,
    SequenceMixer,
)

__all__ = [
    "HGRN",
    "LRU",
    "MLP",
    "RGLRU",
    "Attention",
    "ChannelMixer",
    "DenseMixer",
    "ExplicitFilter",
    "FFTConv",
    "Filter",
    "GatedMLP",
    "Hyena",
    "ImplicitFilter",
    "Mamba",
    "MinGRU",
    "MinLSTM",
    "S4DFilter",
    "SequenceMixer",
]
