"""The gated linear attention engine: a matrix-valued state that decays."""

from ember_keras.ops.engines.gated_linear_attention.engine import gated_linear_attention

__all__ = ["gated_linear_attention"]
