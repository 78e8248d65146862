"""The kernel table: fast implementations, where each applies, and why it refuses."""

from ember_keras.ops.kernels import (
    chunked,
    complex_fft,
    diagonal,
    fused_attention,
    late_products,
    norms,
    short_filters,
    table,
    traced_step,
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
    late_products,
    norms,
    short_filters,
    traced_step,
)
table.setting()
