"""PyTorch."""

import ml_dtypes
import numpy as np
import torch


def to_numpy(x):
    x = x.detach().resolve_conj().resolve_neg()
    if x.device.type != "cpu":
        x = x.cpu()
    if x.dtype == torch.bfloat16:  # Numpy has no bfloat16 of its own: share the bits.
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def from_numpy(array):
    if array.dtype == ml_dtypes.bfloat16:
        return from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # Torch knows no read-only memory and no negative strides.
    return torch.from_numpy(array)


def from_dlpack(x):
    return torch.from_dlpack(x)


def compact(x):
    return x.resolve_conj().resolve_neg().contiguous()


def to_dlpack(x, **options):
    return x.__dlpack__(**options)


def dlpack_device(x):
    return x.__dlpack_device__()


def device(x):
    return f"{x.device.type}:{x.device.index or 0}"


def to_device(x, device):
    try:
        return x.to("cpu" if device == "cpu:0" else device)
    except RuntimeError as error:
        raise ValueError(
            f"Received device={device!r}. Expected a device that this torch can use, for example "
            f"'cpu:0', 'cuda:0' or 'mps:0'. Torch says: {error}"
        ) from error


def gradient_risk(x):
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return "is traced by torch.func (grad, vmap or jvp)"
    if isinstance(x, torch._subclasses.FakeTensor) or x.is_meta:
        return "is a shape without values (a torch meta or fake tensor)"
    return "requires a gradient (torch)" if x.requires_grad else None


def missing_dtype(name):
    if name in ("uint16", "uint32", "uint64"):
        return "is not a dtype of Keras's torch backend; use a signed or a smaller integer"
    return None
