"""The kernel table: fast implementations, where each applies, and why it refuses."""

from ember_keras.ops.kernels import (
    chunked,
    complex_fft,
    cpu_fft_conv,
    diagonal,
    fused_attention,
    late_products,
    norms,
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
    cpu_fft_conv,
    diagonal,
    fused_attention,
    late_products,
    norms,
    row_groups,
    short_filters,
    synapses,
    traced_step,
    turns,
)
table.setting()
