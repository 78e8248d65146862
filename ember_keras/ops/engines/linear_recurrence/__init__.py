"""The diagonal linear recurrence engine: elementwise decays, real or complex, and Mamba's scan."""

from ember_keras.ops.engines.linear_recurrence.engine import linear_recurrence
from ember_keras.ops.engines.linear_recurrence.selective import selective_scan

__all__ = ["linear_recurrence", "selective_scan"]
