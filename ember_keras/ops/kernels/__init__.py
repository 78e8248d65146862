"""The kernel table: fast implementations, where each applies, and why it refuses."""

from ember_keras.ops.kernels import complex_fft, diagonal, fused_attention, table, traced_step
from ember_keras.ops.kernels.table import (
    Kernel,
    Request,
    Row,
    choose,
    explain,
    kernels,
    register,
    request,
)

__all__ = ["Kernel", "Request", "Row", "choose", "explain", "kernels", "register", "request"]

del complex_fft, diagonal, fused_attention, traced_step
table.setting()
