"""The kernel as operators of torch, which autograd, `torch.compile` and `torch.func` know."""

import ctypes

import torch

from ember_keras.cuda import library
from ember_keras.ops.kernels.complex_fft import gradients
from ember_keras.ops.kernels.gradient import with_gradient

_LIBRARY = library.load()[0]
_GPU = library.load_gpu()[0]

_DTYPES = {
    torch.float32: library.FLOAT32,
    torch.float64: library.FLOAT64,
    torch.float16: library.FLOAT16,
    torch.bfloat16: library.BFLOAT16,
}


def run(u, k, d, start, length, skip, fft_length):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    k = k.to(_kind(u.dtype))
    filters = (k,) if d is None else (k, d.to(k.dtype))

    def forward(u, k, d=None):
        return _OPERATORS.fft_conv(u, k, d, start, length, skip), ()

    def backward(inputs, _, g):
        u, k, d = (*inputs, None)[:3]
        if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
            found = gradients(u, k, d, g, start=start, skip=skip, fft_length=fft_length)
        else:
            found = _OPERATORS.fft_conv_backward(g, u, k, d, start, skip)
        return found[: len(inputs)]

    return with_gradient(forward, backward, saved=tuple(range(1 + len(filters))))(u, *filters)


def _kind(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


_CALL = "Tensor u, Tensor k, Tensor? d, int start"
torch.library.define("ember_keras::fft_conv", f"({_CALL}, int length, int skip) -> Tensor")
torch.library.define(
    "ember_keras::fft_conv_backward", f"(Tensor g, {_CALL}, int skip) -> (Tensor, Tensor, Tensor)"
)
_OPERATORS = torch.ops.ember_keras


@torch.library.impl("ember_keras::fft_conv", "cpu")
def _fft_conv(u, k, d, start, length, skip):
    conv, tensors = _forward(u, k, d, start, length, skip)
    addresses = map(_address, tensors)
    _check(_LIBRARY.run_forward(conv, *addresses, None, 0, torch.get_num_threads()))
    return tensors[-1]


@torch.library.impl("ember_keras::fft_conv_backward", "cpu")
def _fft_conv_backward(g, u, k, d, start, skip):
    conv, tensors, found = _backward(g, u, k, d, start, skip)
    addresses = map(_address, tensors)
    _check(_LIBRARY.run_backward(conv, *addresses, None, 0, torch.get_num_threads()))
    return found


@torch.library.impl("ember_keras::fft_conv", "cuda")
def _fft_conv_cuda(u, k, d, start, length, skip):
    conv, tensors = _forward(u, k, d, start, length, skip)
    _launch(_GPU.forward, conv, tensors, backward=False)
    return tensors[-1]


@torch.library.impl("ember_keras::fft_conv_backward", "cuda")
def _fft_conv_backward_cuda(g, u, k, d, start, skip):
    conv, tensors, found = _backward(g, u, k, d, start, skip)
    _launch(_GPU.backward, conv, tensors, backward=True)
    return found


def _forward(u, k, d, start, length, skip):
    """Return the call's structure and its tensors in the order of the C interface, y last."""
    y = u.new_empty(u.shape[0], length, u.shape[2])
    conv = _describe(u, k, start, length, skip)
    conv.y = _strides(y)
    return conv, (u, k, None if d is None else d.contiguous(), None, None, y)


def _backward(g, u, k, d, start, skip):
    """Return the call's structure, its tensors in the order of the C interface, the gradients."""
    du, dk, dd = found = _gradients(u, k, d)
    conv = _describe(u, k, start, g.shape[1], skip)
    conv.g, conv.du = _strides(g), _strides(du)
    conv.dk_tap, conv.dk_filter = dk.stride()
    d, dd = (None, None) if d is None else (d.contiguous(), dd)
    return conv, (u, k, d, None, None, g, du, dk, dd, None, None), found


def _launch(function, conv, tensors, backward):
    """Start a call on the current stream; its scratch is torch's memory, free for what follows."""
    device = tensors[0].device
    with torch.cuda.device(device):
        card = _GPU.card(device.index)
        size = _GPU.scratch_bytes(conv, card, backward, filters=backward)
        scratch = torch.empty(size, dtype=torch.uint8, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream
        function(conv, card, map(_address, tensors), _address(scratch), size, stream)


@torch.library.register_fake("ember_keras::fft_conv")
def _(u, k, d, start, length, skip):
    return u.new_empty(u.shape[0], length, u.shape[2])


@torch.library.register_fake("ember_keras::fft_conv_backward")
def _(g, u, k, d, start, skip):
    return _gradients(u, k, d)


@torch.library.register_vmap("ember_keras::fft_conv")
def _(info, axes, u, k, d, start, length, skip):
    if axes[1] is None and axes[2] is None:
        u = u.movedim(axes[0], 0)
        y = _OPERATORS.fft_conv(u.flatten(0, 1), k, d, start, length, skip)
        return y.unflatten(0, u.shape[:2]), 0
    each = _entries((u, k, d), axes, info.batch_size)
    return torch.stack([_OPERATORS.fft_conv(*x, start, length, skip) for x in each]), 0


@torch.library.register_vmap("ember_keras::fft_conv_backward")
def _(info, axes, g, u, k, d, start, skip):
    each = _entries((g, u, k, d), axes, info.batch_size)
    found = [_OPERATORS.fft_conv_backward(*x, start, skip) for x in each]
    return tuple(torch.stack(x) for x in zip(*found, strict=True)), (0, 0, 0)


def _gradients(u, k, d):
    """Return room for the gradients of u, k and d; that of a d of None is empty."""
    return u.new_empty(u.shape), k.new_empty(k.shape), k.new_empty(0 if d is None else u.shape[2])


def _entries(tensors, axes, count):
    """Return the tensors of each entry of the axes that a vmap maps over."""
    columns = [
        [x] * count if x is None or axis is None else x.unbind(axis)
        for x, axis in zip(tensors, axes[: len(tensors)], strict=True)
    ]
    return zip(*columns, strict=True)


def _describe(u, k, start, length, skip):
    conv = library.Convolution(version=library.VERSION, start=start, length=length, skip=skip)
    for x in (u, k):
        if x.dtype not in _DTYPES:
            raise TypeError(f"fft_conv: received {x.dtype}, expected a floating point tensor.")
    conv.dtype, conv.filter_dtype = _DTYPES[u.dtype], _DTYPES[k.dtype]
    conv.batch, conv.size, conv.width = u.shape
    conv.taps, conv.filters = k.shape
    conv.k_tap, conv.k_filter = k.stride()
    conv.u = _strides(u)
    return conv


def _strides(x):
    return library.Strides(*x.stride())


def _address(x):
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def _check(status):
    if status:
        raise ValueError(f"fft_conv: {_LIBRARY.error(status)}.")
