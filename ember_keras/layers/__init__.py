"""Ember Keras layers: sequence mixers, channel mixers, and the filters of long convolutions."""

from ember_keras.layers import norms as norms
from ember_keras.layers.channel_mixing import MLP, ChannelMixer, DenseMixer, GatedMLP
from ember_keras.layers.common.filters import (
    DecayFilter,
    ExplicitFilter,
    Filter,
    ImplicitFilter,
    RationalFilter,
    S4DFilter,
)
from ember_keras.layers.sequence_mixing import (
    H3,
    Attention,
    FFTConv,
    Hyena,
    HyenaExperts,
    MultiheadHyena,
    SequenceMixer,
    SlidingAttention,
)

__all__ = [
    "H3",
    "MLP",
    "Attention",
    "ChannelMixer",
    "DecayFilter",
    "DenseMixer",
    "ExplicitFilter",
    "FFTConv",
    "Filter",
    "GatedMLP",
    "Hyena",
    "HyenaExperts",
    "ImplicitFilter",
    "MultiheadHyena",
    "RationalFilter",
    "S4DFilter",
    "SequenceMixer",
    "SlidingAttention",
]
