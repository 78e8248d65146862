"""Ember Keras layers: sequence mixers, channel mixers, and the filters of long convolutions."""

from ember_keras.layers import norms as norms
from ember_keras.layers.channel_mixing import (
    MLP,
    ChannelMixer,
    DenseMixer,
    GatedMLP,
    RWKV5ChannelMixer,
    RWKV6ChannelMixer,
    RWKV7ChannelMixer,
)
from ember_keras.layers.common.feature_maps import (
    EluFeatures,
    FeatureMap,
    HedgehogFeatures,
    ReluFeatures,
    TaylorFeatures,
)
from ember_keras.layers.common.filters import ExplicitFilter, Filter, ImplicitFilter, S4DFilter
from ember_keras.layers.sequence_mixing import (
    HGRN2,
    MLSTM,
    Attention,
    DeltaNet,
    FFTConv,
    GatedDeltaNet,
    GatedLinearAttention,
    Hyena,
    KimiDeltaAttention,
    LinearAttention,
    Mamba2,
    Retention,
    SequenceMixer,
)

__all__ = [
    "Attention",
    "ChannelMixer",
    "DeltaNet",
    "DenseMixer",
    "EluFeatures",
    "ExplicitFilter",
    "FFTConv",
    "FeatureMap",
    "Filter",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "GatedMLP",
    "HGRN2",
    "HedgehogFeatures",
    "Hyena",
    "ImplicitFilter",
    "KimiDeltaAttention",
    "LinearAttention",
    "MLP",
    "MLSTM",
    "Mamba2",
    "RWKV5ChannelMixer",
    "RWKV6ChannelMixer",
    "RWKV7ChannelMixer",
    "ReluFeatures",
    "Retention",
    "S4DFilter",
    "SequenceMixer",
    "TaylorFeatures",
]
