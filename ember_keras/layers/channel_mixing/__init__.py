"""Layers that work on each position alone."""

from ember_keras.layers.channel_mixing.base import ChannelMixer
from ember_keras.layers.channel_mixing.dense import DenseMixer
from ember_keras.layers.channel_mixing.mlp import MLP, GatedMLP

__all__ = ["MLP", "ChannelMixer", "DenseMixer", "GatedMLP"]
