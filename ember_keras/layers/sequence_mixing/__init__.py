"""Layers that move information along time."""

from ember_keras.layers.sequence_mixing.attention import Attention
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.fft_conv import FFTConv
from ember_keras.layers.sequence_mixing.hgrn import HGRN
from ember_keras.layers.sequence_mixing.hyena import Hyena
from ember_keras.layers.sequence_mixing.lru import LRU
from ember_keras.layers.sequence_mixing.mamba import Mamba
from ember_keras.layers.sequence_mixing.min_recurrent import MinGRU, MinLSTM
from ember_keras.layers.sequence_mixing.rg_lru import RGLRU

__all__ = [
    "HGRN",
    "LRU",
    "RGLRU",
    "Attention",
    "FFTConv",
    "Hyena",
    "Mamba",
    "MinGRU",
    "MinLSTM",
    "SequenceMixer",
]
