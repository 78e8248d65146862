"""Blocks: a norm, a mixer and a residual, the unit that models stack."""

from ember_keras.blocks.block import Block
from ember_keras.blocks.hybrid import HybridBlock
from ember_keras.blocks.named import (
    FFTConvBlock,
    HyenaBlock,
    LSTMBlock,
    MambaBlock,
    MoEBlock,
    RWKVBlock,
    TransformerBlock,
    xLSTMBlock,
)
from ember_keras.blocks.stack import Repeat

__all__ = [
    "Block",
    "FFTConvBlock",
    "HybridBlock",
    "HyenaBlock",
    "LSTMBlock",
    "MambaBlock",
    "MoEBlock",
    "RWKVBlock",
    "Repeat",
    "TransformerBlock",
    "xLSTMBlock",
]
