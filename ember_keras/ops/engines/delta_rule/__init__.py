"""The delta rule engine: a matrix-valued state that corrects what it recalls."""

from ember_keras.ops.engines.delta_rule.engine import delta_rule

__all__ = ["delta_rule"]
