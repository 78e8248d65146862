"""What `keras.ops` lacks, on torch."""

import threading

import keras
import ml_dtypes
import numpy as np
import torch
import torch.utils.checkpoint
from keras.src.backend.torch.core import device_scope, to_torch_dtype

from ember_keras.backend import _common, _recomputing


def to_numpy(x):
    """Return the values of a tensor, variable or array as a numpy array."""
    x = _common.tensor_of(x)
    if not isinstance(x, torch.Tensor):
        return np.asarray(x)
    x = x.detach().cpu().resolve_conj().resolve_neg()
    if x.dtype == torch.bfloat16:
        return x.float().numpy().astype(ml_dtypes.bfloat16)
    return x.numpy().copy()


def is_backend_tensor(x):
    """Return True for a tensor of the running library."""
    return isinstance(x, torch.Tensor)


def is_tracing(x):
    """Return True where the values of `x` cannot be read now."""
    if _common.is_symbolic(x) or torch.compiler.is_compiling():
        return True
    x = _common.tensor_of(x)
    return isinstance(x, torch._subclasses.FakeTensor) or (
        isinstance(x, torch.Tensor) and x.device.type == "meta"
    )


def value_and_grad(fn):
    """Return a function of the same arguments that gives ``(value, gradients)``.

    Args:
        fn: function of one or more tensors that returns a scalar.

    Returns:
        A function. Its gradients are a tuple with one entry an argument: a tensor for a floating
        point argument (zeros where `fn` does not depend on it), None for any other.
    """

    def both(*arrays):
        tensors, positions = _common.split(arrays)

        def pure(values):
            full = list(tensors)
            for position, value in zip(positions, values, strict=True):
                full[position] = value
            return _common.scalar(fn(*full)), []

        value, _, gradients = _differentiate(pure, [tensors[at] for at in positions])
        return value, _common.spread(gradients, positions, len(tensors))

    return both


def value_and_grad_variables(fn, variables):
    """Return ``(value, gradients)`` of the scalar ``fn()``, a list with one entry a variable."""
    return _common.variables_through(_differentiate, fn, variables)


def compile(fn, donate=()):
    """Return `fn` itself: under torch Keras runs eagerly, and so does Ember Keras.

    ``torch.compile`` needs a C++ compiler on the machine; call it yourself where you have one.
    """
    return fn


def no_gradients():
    """Return a context in which torch records nothing for a gradient."""
    return torch.no_grad()


def from_dlpack(x):
    """Return a tensor that shares the memory of `x`, an object with ``__dlpack__``."""
    return torch.from_dlpack(x)


def to_dlpack(x):
    """Return an object with ``__dlpack__`` and ``__dlpack_device__`` for the tensor `x`."""
    return _common.tensor_of(x).detach()


def device_kind(x=None):
    """Return the kind of device that the tensor `x` is on, or that Keras puts a new one on."""
    return (x if isinstance(x, torch.Tensor) else keras.ops.zeros(())).device.type


def devices():
    """Return the devices of this process."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps:0")
    return [*found, "cpu:0"]


_NESTING = threading.local()


def _differentiate(fn, values):
    """Differentiate; inside another call of this the results keep the graph that it needs."""
    depth = getattr(_NESTING, "depth", 0)
    again = depth > 0 and any(value.requires_grad for value in values)
    _NESTING.depth = depth + 1
    try:
        with torch.enable_grad():
            leaves = [
                value.view_as(value)
                if again and value.requires_grad
                else value.detach().requires_grad_()
                for value in values
            ]
            value, others = fn(leaves)
            if leaves and value.requires_grad:
                gradients = torch.autograd.grad(
                    value, leaves, allow_unused=True, create_graph=again
                )
            else:
                gradients = [None] * len(leaves)
    finally:
        _NESTING.depth = depth
    gradients = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, gradients, strict=True)
    ]
    if again:
        return value, others, gradients
    return value.detach(), [other.detach() for other in others], gradients


def recompute(layer, call, x, **options):
    """Return ``call(x, **options)``, which runs again in the backward pass.

    Args:
        layer: `keras.layers.Layer`, built: the one that holds all variables that `call` uses.
        call: function of a tensor and the options, nests of tensors and plain values.
        x: tensor.
        **options: what else it takes.
    """
    return _recomputing.run(_checkpoint, layer, call, x, options)


def _checkpoint(pure, tensors, count, made):
    values = list(tensors)
    found = torch.utils.checkpoint.checkpoint(
        lambda *leaves: pure(*values[:count], *leaves),
        *tensors[count:],
        use_reentrant=False,
        preserve_rng_state=True,  # Keras draws from it where a layer was given no seed.
        early_stop=False,
    )
    for at in made.places:  # Their values are about to change in place.
        values[at] = values[at].clone()
    return found


def writable(shape, dtype):
    """Return an array of numpy to write into, and a function that makes a tensor of it.

    The tensor may be the same memory: write nothing after it is made.

    Args:
        shape: tuple of int.
        dtype: str, a dtype of Keras.
    """
    tensor = torch.empty(tuple(shape), dtype=to_torch_dtype(dtype), device="cpu")
    if dtype != "bfloat16":
        return tensor.numpy(), lambda: tensor
    return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16), lambda: tensor


def tells_memory():
    """Return False: nothing here tells the memory of a function before it runs."""
    return False


def compiled_memory(fn, *specs, donate=()):
    """Return None: torch tells no memory before a run."""
    return None


def trace(fn, *specs):
    """Return what ``fn(*specs)`` gives, as a nest of `KerasTensor`.

    It runs on torch's device "meta", which holds no numbers; what asks for one there runs on zeros.
    """
    with torch.no_grad():
        try:
            with device_scope("meta"):
                return _common.shapes_of(fn(*_common.zeros_like_specs(list(specs))))
        except (NotImplementedError, RuntimeError):
            return _common.shapes_of(fn(*_common.zeros_like_specs(list(specs))))
