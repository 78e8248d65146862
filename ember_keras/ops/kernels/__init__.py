"""The kernel table: fast implementations, where each applies, and why it refuses."""

from ember_keras.ops.kernels import (
    chunked,
    complex_fft,
    diagonal,
    fused_attention,
    grouped,
    late_products,
    metal_fft_conv,
    native_experts,
    native_fft_conv,
    native_grouped,
    norms,
    positions,
    row_groups,
    short_filters,
    synapses,
    table,
    traced_step,
    turns,
)
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

del (
    chunked,
    complex_fft,
    diagonal,
    fused_attention,
    grouped,
    late_products,
    metal_fft_conv,
    native_experts,
    native_fft_conv,
    native_grouped,
    norms,
    positions,
    row_groups,
    short_filters,
    synapses,
    traced_step,
    turns,
)
table.setting()
