"""Layers that move information along time."""

from ember_keras.layers.sequence_mixing.attention import Attention
from ember_keras.layers.sequence_mixing.base import SequenceMixer
from ember_keras.layers.sequence_mixing.bidirectional import Bidirectional
from ember_keras.layers.sequence_mixing.cfc import CfC
from ember_keras.layers.sequence_mixing.delta_net import DeltaNet
from ember_keras.layers.sequence_mixing.expanded_mlstm import ExpandedMLSTM
from ember_keras.layers.sequence_mixing.fft_conv import FFTConv
from ember_keras.layers.sequence_mixing.gated_delta_net import GatedDeltaNet
from ember_keras.layers.sequence_mixing.gated_linear_attention import GatedLinearAttention
from ember_keras.layers.sequence_mixing.gru import GRU
from ember_keras.layers.sequence_mixing.h3 import H3
from ember_keras.layers.sequence_mixing.hgrn import HGRN
from ember_keras.layers.sequence_mixing.hgrn2 import HGRN2
from ember_keras.layers.sequence_mixing.hyena import Hyena
from ember_keras.layers.sequence_mixing.hyena_experts import HyenaExperts
from ember_keras.layers.sequence_mixing.kimi_delta_attention import KimiDeltaAttention
from ember_keras.layers.sequence_mixing.linear_attention import LinearAttention
from ember_keras.layers.sequence_mixing.lru import LRU
from ember_keras.layers.sequence_mixing.lstm import LSTM
from ember_keras.layers.sequence_mixing.ltc import LTC
from ember_keras.layers.sequence_mixing.mamba import Mamba
from ember_keras.layers.sequence_mixing.mamba2 import Mamba2
from ember_keras.layers.sequence_mixing.min_recurrent import MinGRU, MinLSTM
from ember_keras.layers.sequence_mixing.mlstm import MLSTM
from ember_keras.layers.sequence_mixing.multihead_hyena import MultiheadHyena
from ember_keras.layers.sequence_mixing.pooled import Pooled
from ember_keras.layers.sequence_mixing.retention import Retention
from ember_keras.layers.sequence_mixing.rg_lru import RGLRU
from ember_keras.layers.sequence_mixing.rwkv4_time_mixer import RWKV4TimeMixer
from ember_keras.layers.sequence_mixing.rwkv5_time_mixer import RWKV5TimeMixer
from ember_keras.layers.sequence_mixing.rwkv6_time_mixer import RWKV6TimeMixer
from ember_keras.layers.sequence_mixing.rwkv7_time_mixer import RWKV7TimeMixer
from ember_keras.layers.sequence_mixing.s4d import S4D
from ember_keras.layers.sequence_mixing.sliding_attention import SlidingAttention
from ember_keras.layers.sequence_mixing.slstm import SLSTM

__all__ = [
    "Attention",
    "Bidirectional",
    "CfC",
    "DeltaNet",
    "ExpandedMLSTM",
    "FFTConv",
    "GRU",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "H3",
    "HGRN",
    "HGRN2",
    "Hyena",
    "HyenaExperts",
    "KimiDeltaAttention",
    "LRU",
    "LSTM",
    "LTC",
    "LinearAttention",
    "MLSTM",
    "Mamba",
    "Mamba2",
    "MinGRU",
    "MinLSTM",
    "MultiheadHyena",
    "RGLRU",
    "RWKV4TimeMixer",
    "RWKV5TimeMixer",
    "RWKV6TimeMixer",
    "RWKV7TimeMixer",
    "Retention",
    "S4D",
    "SLSTM",
    "SequenceMixer",
    "SlidingAttention",
    "Pooled",
]
