"""The kernel as a primitive of mlx: in lazy graphs and compiled code, without copies.

Derivatives of any order, `mx.compile` and `mx.vmap` know it. It is compiled for one version of mlx,
by `python -m ember_keras.cuda mlx`.
"""

import ctypes

import mlx.core as mx

from ember_keras.cuda import build, library

_VERSION = 2
"""Of the binding: another number wherever it takes other arguments."""
_COMMAND = "Run KERAS_BACKEND=mlx python -m ember_keras.cuda mlx."


def _load():
    """Return ``(binding, None)``, or None and the reason in a sentence."""
    kernel, reason = library.load()
    if kernel is None:
        return None, reason
    path = build.HERE / build.mlx_name(mx.__version__)
    if not path.exists():
        others = any(build.HERE.glob(f"{build.MLX_MODULE}-*"))
        built = "was built for another mlx or Python" if others else "has yet to be built"
        return None, f"the binding to mlx {mx.__version__} {built}. {_COMMAND}"
    if library.is_cut_short(path):
        return None, f"{path.name} is cut short. {_COMMAND}"
    try:
        binding = build.load_mlx(path)
    except ImportError as error:
        return None, f"{path.name} can't be loaded: {error}."
    if binding.version != (library.VERSION, _VERSION) or not binding.is_array(mx.array(0.0)):
        return None, f"{path.name} is of another version. {_COMMAND}"
    functions = (kernel.run_forward, kernel.run_backward, kernel.scratch, kernel.say)
    binding.connect(*(ctypes.cast(each, ctypes.c_void_p).value for each in functions))
    return binding, None


_BINDING, REASON = _load()


def run(u, k, d, start, length, skip, fft_length, gate_in=None, gate_out=None):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    kind = mx.float64 if u.dtype == mx.float64 else mx.float32
    inputs = [x for x in (u, k.astype(kind), gate_in, gate_out, d) if x is not None]
    return _BINDING.convolve(
        inputs,
        start=start,
        length=length,
        skip=skip,
        threads=library.cores(),
        gate_in=gate_in is not None,
        gate_out=gate_out is not None,
    )
