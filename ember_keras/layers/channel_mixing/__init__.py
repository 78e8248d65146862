"""Layers that work on each position alone, or with a look at the one before."""

from ember_keras.layers.channel_mixing.base import ChannelMixer
from ember_keras.layers.channel_mixing.dense import DenseMixer
from ember_keras.layers.channel_mixing.mlp import MLP, GatedMLP
from ember_keras.layers.channel_mixing.rwkv import (
    RWKV4ChannelMixer,
    RWKV5ChannelMixer,
    RWKV6ChannelMixer,
    RWKV7ChannelMixer,
)

__all__ = [
    "MLP",
    "ChannelMixer",
    "DenseMixer",
    "GatedMLP",
    "RWKV4ChannelMixer",
    "RWKV5ChannelMixer",
    "RWKV6ChannelMixer",
    "RWKV7ChannelMixer",
]
