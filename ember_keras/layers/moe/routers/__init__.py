"""Routers: which experts each token goes to."""

from ember_keras.layers.moe.routers.base import Router, Routing
from ember_keras.layers.moe.routers.dynamic import DynamicRouter
from ember_keras.layers.moe.routers.expert_choice import ExpertChoiceRouter
from ember_keras.layers.moe.routers.hashed import HashRouter
from ember_keras.layers.moe.routers.sinkhorn import SinkhornRouter
from ember_keras.layers.moe.routers.soft import SoftRouter
from ember_keras.layers.moe.routers.top_k import NoisyTopKRouter, SigmoidRouter, SoftmaxRouter

__all__ = [
    "DynamicRouter",
    "ExpertChoiceRouter",
    "HashRouter",
    "NoisyTopKRouter",
    "Router",
    "Routing",
    "SigmoidRouter",
    "SinkhornRouter",
    "SoftRouter",
    "SoftmaxRouter",
]
