"""Mixtures of experts: experts, routers, combiners, and the layer that joins them."""

from ember_keras.layers.moe.combiners import (
    AttentionCombiner,
    Combiner,
    Concatenation,
    Top1,
    WeightedSum,
)
from ember_keras.layers.moe.experts import (
    DenseExperts,
    Experts,
    GatedMLPExperts,
    HyenaExpert,
    MLPExperts,
    TransformerExpert,
)
from ember_keras.layers.moe.mixture import MixtureOfExperts
from ember_keras.layers.moe.routers import (
    DynamicRouter,
    ExpertChoiceRouter,
    HashRouter,
    NoisyTopKRouter,
    Router,
    SigmoidRouter,
    SinkhornRouter,
    SoftmaxRouter,
    SoftRouter,
)

__all__ = [
    "AttentionCombiner",
    "Combiner",
    "Concatenation",
    "DenseExperts",
    "DynamicRouter",
    "ExpertChoiceRouter",
    "Experts",
    "GatedMLPExperts",
    "HashRouter",
    "HyenaExpert",
    "MLPExperts",
    "MixtureOfExperts",
    "NoisyTopKRouter",
    "Router",
    "SigmoidRouter",
    "SinkhornRouter",
    "SoftRouter",
    "SoftmaxRouter",
    "Top1",
    "TransformerExpert",
    "WeightedSum",
]
