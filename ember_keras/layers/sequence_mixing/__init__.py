"""Layers that move information along time."""

from ember_keras.layers.sequence_mixing.attention import Attention
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.fft_conv import FFTConv
from ember_keras.layers.sequence_mixing.hyena import Hyena
from ember_keras.layers.sequence_mixing.sliding_attention import SlidingAttention

__all__ = ["Attention", "FFTConv", "Hyena", "SequenceMixer", "SlidingAttention"]
