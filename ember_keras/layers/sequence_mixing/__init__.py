"""Layers that move information along time."""

from ember_keras.layers.sequence_mixing.attention import Attention
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.cfc import CfC
from ember_keras.layers.sequence_mixing.fft_conv import FFTConv
from ember_keras.layers.sequence_mixing.gru import GRU
from ember_keras.layers.sequence_mixing.hyena import Hyena
from ember_keras.layers.sequence_mixing.lstm import LSTM
from ember_keras.layers.sequence_mixing.ltc import LTC
from ember_keras.layers.sequence_mixing.slstm import SLSTM

__all__ = ["GRU", "LSTM", "LTC", "SLSTM", "Attention", "CfC", "FFTConv", "Hyena", "SequenceMixer"]
