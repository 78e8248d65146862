"""Experts: what a mixture chooses among."""

from ember_keras.layers.moe.experts.blocks import HyenaExpert, TransformerExpert
from ember_keras.layers.moe.experts.stacked import (
    DenseExperts,
    Experts,
    GatedMLPExperts,
    MLPExperts,
)

__all__ = [
    "DenseExperts",
    "Experts",
    "GatedMLPExperts",
    "HyenaExpert",
    "MLPExperts",
    "TransformerExpert",
]
