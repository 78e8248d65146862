"""The engine of a head and its cross-entropy, which never holds all logits."""

from ember_keras.ops.engines.linear_cross_entropy.engine import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
