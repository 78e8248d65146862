"""The diagonal linear recurrence engine: elementwise, real or complex; Mamba's scan and S4D."""

from ember_keras.ops.engines.linear_recurrence.engine import linear_recurrence
from ember_keras.ops.engines.linear_recurrence.modal import diagonal_state_space
from ember_keras.ops.engines.linear_recurrence.selective import selective_scan

__all__ = ["diagonal_state_space", "linear_recurrence", "selective_scan"]
