"""Layers that move information along time."""

from ember_keras.layers.sequence_mixing.attention import Attention
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.fft_conv import FFTConv
from ember_keras.layers.sequence_mixing.h3 import H3
from ember_keras.layers.sequence_mixing.hyena import Hyena
from ember_keras.layers.sequence_mixing.hyena_experts import HyenaExperts
from ember_keras.layers.sequence_mixing.multihead_hyena import MultiheadHyena
from ember_keras.layers.sequence_mixing.sliding_attention import SlidingAttention

__all__ = [
    "H3",
    "Attention",
    "FFTConv",
    "Hyena",
    "HyenaExperts",
    "MultiheadHyena",
    "SequenceMixer",
    "SlidingAttention",
]
