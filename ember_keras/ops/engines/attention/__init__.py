"""The attention engine: softmax over a causal, sliding, bidirectional or packed window."""

from ember_keras.ops.engines.attention.engine import attention, attention_state

__all__ = ["attention", "attention_state"]
