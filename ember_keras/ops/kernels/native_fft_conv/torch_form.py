"""The kernel as operators of torch, which autograd, `torch.compile` and `torch.func` know."""

import ctypes

import torch

from ember_keras.cuda import library
from ember_keras.ops.kernels.complex_fft import gated_gradients
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.torch_devices import require_one_device

_LIBRARY = library.load()[0]
_GPU = library.load_gpu()[0]
if _LIBRARY is not None:
    _LIBRARY.use_openmp(torch._C.__file__)

_DTYPES = {
    torch.float32: library.FLOAT32,
    torch.float64: library.FLOAT64,
    torch.float16: library.FLOAT16,
    torch.bfloat16: library.BFLOAT16,
}


def run(u, k, d, start, length, skip, fft_length, gate_in=None, gate_out=None):
    """Return the window ``[start, start + length)`` of the convolution, as `parallel.windowed`."""
    k = k.to(_kind(u.dtype))
    every = (u, k, d if d is None else d.to(k.dtype), gate_in, gate_out)
    there = [x is not None for x in every]

    def spread(given):
        """Return the five arguments, None where one is not there."""
        return [given[sum(there[:at])] if has else None for at, has in enumerate(there)]

    def forward(*given):
        return _OPERATORS.fft_conv(*spread(given), start, length, skip), ()

    def backward(given, _, g):
        arguments = spread(given)
        if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
            numbers = {"start": start, "skip": skip, "fft_length": fft_length}
            found = gated_gradients(*arguments, g, **numbers)
        else:
            found = _OPERATORS.fft_conv_backward(g, *arguments, start, skip)
        return tuple(x for x, has in zip(found, there, strict=True) if has)

    given = [x for x in every if x is not None]
    return with_gradient(forward, backward, saved=tuple(range(len(given))))(*given)


def _kind(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


_CALL = "Tensor u, Tensor k, Tensor? d, Tensor? gate_in, Tensor? gate_out, int start"
torch.library.define("ember_keras::fft_conv", f"({_CALL}, int length, int skip) -> Tensor")
torch.library.define(
    "ember_keras::fft_conv_backward",
    f"(Tensor g, {_CALL}, int skip) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_OPERATORS = torch.ops.ember_keras


@torch.library.impl("ember_keras::fft_conv", "cpu")
def _fft_conv(u, k, d, gate_in, gate_out, start, length, skip):
    conv, tensors = _forward(u, k, d, gate_in, gate_out, start, length, skip)
    addresses = map(_address, tensors)
    _check(_LIBRARY.run_forward(conv, *addresses, None, 0, torch.get_num_threads()))
    return tensors[-1]


@torch.library.impl("ember_keras::fft_conv_backward", "cpu")
def _fft_conv_backward(g, u, k, d, gate_in, gate_out, start, skip):
    conv, tensors, found = _backward(g, u, k, d, gate_in, gate_out, start, skip)
    addresses = map(_address, tensors)
    _check(_LIBRARY.run_backward(conv, *addresses, None, 0, torch.get_num_threads()))
    return found


@torch.library.impl("ember_keras::fft_conv", "cuda")
def _fft_conv_cuda(u, k, d, gate_in, gate_out, start, length, skip):
    conv, tensors = _forward(u, k, d, gate_in, gate_out, start, length, skip)
    _launch(_GPU.forward, conv, tensors, backward=False)
    return tensors[-1]


@torch.library.impl("ember_keras::fft_conv_backward", "cuda")
def _fft_conv_backward_cuda(g, u, k, d, gate_in, gate_out, start, skip):
    conv, tensors, found = _backward(g, u, k, d, gate_in, gate_out, start, skip)
    _launch(_GPU.backward, conv, tensors, backward=True)
    return found


def _forward(u, k, d, gate_in, gate_out, start, length, skip):
    """Return the call's structure and its tensors in the order of the C interface, y last."""
    _require(u, k, d, {"gate_in": gate_in, "gate_out": gate_out}, u.shape[1], length)
    y = u.new_empty(u.shape[0], length, u.shape[2])
    conv = _describe(u, k, gate_in, gate_out, start, length, skip)
    conv.y = _strides(y)
    return conv, (u, k, None if d is None else d.contiguous(), gate_in, gate_out, y)


def _backward(g, u, k, d, gate_in, gate_out, start, skip):
    """Return the call's structure, its tensors in the order of the C interface, the gradients."""
    signals = {"gate_in": gate_in, "gate_out": gate_out, "g": g}
    _require(u, k, d, signals, u.shape[1], g.shape[1] if g.dim() == 3 else None)
    found = _gradients(u, k, d, gate_in, gate_out)
    conv = _describe(u, k, gate_in, gate_out, start, g.shape[1], skip)
    conv.g, conv.du = _strides(g), _strides(found[0])
    conv.dk_tap, conv.dk_filter = found[1].stride()
    if gate_in is not None:
        conv.dgate_in = _strides(found[3])
    if gate_out is not None:
        conv.dgate_out = _strides(found[4])
    inputs = (u, k, d if d is None else d.contiguous(), gate_in, gate_out)
    wanted = (None if x is None else dx for x, dx in zip(inputs, found, strict=True))
    return conv, (*inputs, g, *wanted), found


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
def _(u, k, d, gate_in, gate_out, start, length, skip):
    require_one_device("fft_conv", u=u, k=k, d=d, gate_in=gate_in, gate_out=gate_out)
    return u.new_empty(u.shape[0], length, u.shape[2])


@torch.library.register_fake("ember_keras::fft_conv_backward")
def _(g, u, k, d, gate_in, gate_out, start, skip):
    require_one_device("fft_conv", u=u, k=k, d=d, gate_in=gate_in, gate_out=gate_out, g=g)
    return _gradients(u, k, d, gate_in, gate_out)


def _keep(ctx, inputs, output):
    *tensors, ctx.start, _, ctx.skip = inputs
    ctx.save_for_backward(*tensors)


def _slopes(ctx, g):
    """The gradients of the operator where it is called by itself, not through `run`."""
    inputs = ctx.saved_tensors
    if torch.is_grad_enabled():  # A gradient of this gradient is asked for.
        least = max(inputs[0].shape[1] + inputs[1].shape[0] - 1, ctx.start + g.shape[1])
        numbers = {"start": ctx.start, "skip": ctx.skip, "fft_length": least + least % 2}
        found = gated_gradients(*inputs, g, **numbers)
    else:
        found = _OPERATORS.fft_conv_backward(g, *inputs, ctx.start, ctx.skip)
    each = (None if x is None else dx for x, dx in zip(inputs, found, strict=True))
    return *each, None, None, None


torch.library.register_autograd("ember_keras::fft_conv", _slopes, setup_context=_keep)


@torch.library.register_vmap("ember_keras::fft_conv")
def _(info, axes, u, k, d, gate_in, gate_out, start, length, skip):
    inputs = (u, k, d, gate_in, gate_out)
    one = _one_entry(inputs, axes)
    if axes[1] is None and axes[2] is None:
        count = info.batch_size
        u, gate_in, gate_out = (_as_batch(inputs[at], axes[at], count) for at in (0, 3, 4))
        y = _OPERATORS.fft_conv(u, k, d, gate_in, gate_out, start, length, skip)
        return y.unflatten(0, (count, one[0].shape[0])), 0
    if info.batch_size == 0:
        return u.new_empty(0, one[0].shape[0], length, one[0].shape[2]), 0
    each = _entries(inputs, axes, info.batch_size)
    return torch.stack([_OPERATORS.fft_conv(*x, start, length, skip) for x in each]), 0


@torch.library.register_vmap("ember_keras::fft_conv_backward")
def _(info, axes, g, u, k, d, gate_in, gate_out, start, skip):
    inputs = (g, u, k, d, gate_in, gate_out)
    if info.batch_size == 0:
        like = _gradients(*_one_entry(inputs, axes)[1:])
        return tuple(x.new_empty(0, *x.shape) for x in like), (0, 0, 0, 0, 0)
    each = _entries(inputs, axes, info.batch_size)
    found = [_OPERATORS.fft_conv_backward(*x, start, skip) for x in each]
    return tuple(torch.stack(x) for x in zip(*found, strict=True)), (0, 0, 0, 0, 0)


def _gradients(u, k, d, gate_in, gate_out):
    """Return room for the gradients; that of what is None is empty."""
    dd = k.new_empty(0 if d is None else u.shape[2])
    gates = (u.new_empty((0,) if gate is None else gate.shape) for gate in (gate_in, gate_out))
    return u.new_empty(u.shape), k.new_empty(k.shape), dd, *gates


def _as_batch(x, axis, count):
    """Return a signal of a vmap with the axis that it maps over as a part of the batch."""
    if x is None:
        return None
    x = x.expand(count, *x.shape) if axis is None else x.movedim(axis, 0)
    return x.flatten(0, 1)


def _one_entry(tensors, axes):
    """Return tensors of the shapes that one entry of a vmap has, also where there is none."""
    return [
        x if x is None or axis is None else x.new_empty(x.movedim(axis, 0).shape[1:])
        for x, axis in zip(tensors, axes[: len(tensors)], strict=True)
    ]


def _entries(tensors, axes, count):
    """Return the tensors of each entry of the axes that a vmap maps over."""
    columns = [
        [x] * count if x is None or axis is None else x.unbind(axis)
        for x, axis in zip(tensors, axes[: len(tensors)], strict=True)
    ]
    return zip(*columns, strict=True)


def _require(u, k, d, signals, size, length):
    """Refuse what the call would read past its end, or as numbers of another kind."""
    if u.dim() != 3 or k.dim() != 2:
        raise ValueError(
            f"fft_conv: received u and k of shapes {tuple(u.shape)} and {tuple(k.shape)}, "
            "expected (B, T, D) and (taps, F)."
        )
    wanted = {"k": (k, tuple(k.shape), _kind(u.dtype)), "d": (d, (u.shape[2],), k.dtype)}
    for name, x in signals.items():
        wanted[name] = x, (u.shape[0], size if name == "gate_in" else length, u.shape[2]), u.dtype
    for name, (x, shape, dtype) in wanted.items():
        if x is not None and (tuple(x.shape), x.dtype, x.device) != (shape, dtype, u.device):
            raise ValueError(
                f"fft_conv: received {name} of shape {tuple(x.shape)}, {x.dtype}, on {x.device}; "
                f"expected {shape}, {dtype}, on {u.device}."
            )


def _describe(u, k, gate_in, gate_out, start, length, skip):
    conv = library.Convolution(version=library.VERSION, start=start, length=length, skip=skip)
    for x in (u, k):
        if x.dtype not in _DTYPES:
            raise TypeError(f"fft_conv: received {x.dtype}, expected a floating point tensor.")
    conv.dtype, conv.filter_dtype = _DTYPES[u.dtype], _DTYPES[k.dtype]
    conv.batch, conv.size, conv.width = u.shape
    conv.taps, conv.filters = k.shape
    conv.k_tap, conv.k_filter = k.stride()
    conv.u = _strides(u)
    if gate_in is not None:
        conv.gate_in = _strides(gate_in)
    if gate_out is not None:
        conv.gate_out = _strides(gate_out)
    return conv


def _strides(x):
    return library.Strides(*x.stride())


def _address(x):
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def _check(status):
    if status:
        raise ValueError(f"fft_conv: {_LIBRARY.error(status)}.")
