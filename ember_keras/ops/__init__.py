"""The engines under the sequence mixers, and the namespace of `EmberTensor`."""

from ember_keras.ops import tensor as _tensor
from ember_keras.ops.engines.attention import attention, attention_state
from ember_keras.ops.engines.delta_rule import delta_rule
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state, taps_needed
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention
from ember_keras.ops.engines.grouped_matmul import grouped_matmul
from ember_keras.ops.engines.linear_cross_entropy import linear_cross_entropy
from ember_keras.ops.engines.linear_recurrence import (
    diagonal_state_space,
    linear_recurrence,
    selective_scan,
)
from ember_keras.ops.engines.nonlinear_scan import nonlinear_scan
from ember_keras.ops.kernels import explain
from ember_keras.ops.tensor import *  # noqa: F403

__all__ = [
    *_tensor.__all__,
    "attention",
    "attention_state",
    "delta_rule",
    "diagonal_state_space",
    "explain",
    "fft_conv",
    "fft_conv_state",
    "gated_linear_attention",
    "grouped_matmul",
    "linear_cross_entropy",
    "linear_recurrence",
    "nonlinear_scan",
    "selective_scan",
    "taps_needed",
]
