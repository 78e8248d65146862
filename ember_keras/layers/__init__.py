"""Ember Keras layers: sequence mixers, channel mixers, and the filters of long convolutions."""

from ember_keras.layers import norms as norms
from ember_keras.layers.channel_mixing import MLP, ChannelMixer, DenseMixer, GatedMLP
from ember_keras.layers.common.filters import ExplicitFilter, Filter, ImplicitFilter, S4DFilter
from ember_keras.layers.common.wirings import ExplicitWiring, FullWiring, NCPWiring, RandomWiring
from ember_keras.layers.sequence_mixing import (
    GRU,
    LSTM,
    LTC,
    SLSTM,
    Attention,
    CfC,
    FFTConv,
    Hyena,
    SequenceMixer,
)

__all__ = [
    "GRU",
    "LSTM",
    "LTC",
    "MLP",
    "SLSTM",
    "Attention",
    "CfC",
    "ChannelMixer",
    "DenseMixer",
    "ExplicitFilter",
    "ExplicitWiring",
    "FFTConv",
    "Filter",
    "FullWiring",
    "GatedMLP",
    "Hyena",
    "ImplicitFilter",
    "NCPWiring",
    "RandomWiring",
    "S4DFilter",
    "SequenceMixer",
]
