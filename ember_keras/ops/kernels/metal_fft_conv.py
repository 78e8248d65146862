"""The long convolution on Apple GPUs, through `mlx.core.fast.metal_kernel`: experimental.

No Apple GPU has run it, so nothing chooses it: it runs where `EMBER_KERNELS` names it. The text of
the kernels is in `ember_keras/cuda/metal.py`.
"""

from ember_keras.cuda import metal
from ember_keras.ops.kernels.table import Kernel, register, setting

NAME = "metal_fft_conv"
_FLOATS = ("float16", "bfloat16", "float32")


def _refuse(request):
    import mlx.core as mx

    if setting() != NAME:
        return f"it is experimental, and no Apple GPU has run it yet. EMBER_KERNELS={NAME} runs it."
    if not mx.metal.is_available():
        return "mlx finds no Metal on this machine."
    if request.device != "gpu":
        return f"it runs on gpu, and the tensors are on {request.device}."
    if request.dtype not in _FLOATS:
        return f"it computes with {', '.join(_FLOATS)}, and not with {request.dtype}."
    sizes = request.shapes["u"][1], request.shapes["k"][0]
    points = metal.points(*sizes, request.options["start"], request.options["length"])
    if points > metal.MOST_POINTS:
        return f"its transforms have at most {metal.MOST_POINTS} points, and this one {points}."
    return None


def _run(*tensors, **options):
    from ember_keras.ops.kernels import mlx_metal

    return mlx_metal.run(*tensors, **options)


register(
    Kernel(
        NAME,
        "fft_conv",
        ("mlx",),
        _refuse,
        _run,
        "experimental: Metal, tested on a twin on the processor; no Apple GPU has run it yet.",
    )
)
