"""The diagonal linear recurrence engine: real or complex; Mamba's scan, S4D, RWKV-4's average."""

from ember_keras.ops.engines.linear_recurrence.engine import linear_recurrence
from ember_keras.ops.engines.linear_recurrence.modal import diagonal_state_space
from ember_keras.ops.engines.linear_recurrence.selective import selective_scan
from ember_keras.ops.engines.linear_recurrence.weighted import wkv

__all__ = ["diagonal_state_space", "linear_recurrence", "selective_scan", "wkv"]
