"""TensorFlow."""

import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

# TensorFlow's kernels stop the process at memory that is not aligned so.
_ALIGNMENT = 64


def to_numpy(x):
    if x.dtype == tf.bfloat16:
        return x.numpy()
    return np.asarray(memoryview(tf.convert_to_tensor(x)))


def from_numpy(array):
    flags = array.flags
    shares = flags.writeable and flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0
    if not shares or not array.size or array.dtype == ml_dtypes.bfloat16:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def from_dlpack(x):
    tensor = tf.experimental.dlpack.from_dlpack(x.__dlpack__())
    if "CPU" not in tensor.device:
        return tensor
    bits = tf.bitcast(tensor, tf.uint16) if tensor.dtype == tf.bfloat16 else tensor
    view = np.asarray(memoryview(bits))
    if view.ctypes.data % _ALIGNMENT == 0:
        return tensor
    return tf.bitcast(tf.constant(view.copy()), tensor.dtype)


def compact(x):
    return x


def to_dlpack(x, **options):
    return tf.convert_to_tensor(x).__dlpack__(**options)


def dlpack_device(x):
    return tf.convert_to_tensor(x).__dlpack_device__()


def device(x):
    name = x.device or ""
    if not name:
        return "traced"
    kind, index = name.rsplit("device:", 1)[-1].lower().split(":")
    return f"{kind}:{index}"


def to_device(x, device):
    known = {
        f"{item.device_type.lower()}:{item.name.rsplit(':', 1)[-1]}"
        for item in tf.config.list_logical_devices()
    }
    target = device if ":" in device else f"{device}:0"
    if target not in known:
        raise ValueError(
            f"Received device={device!r}. Expected one of {', '.join(sorted(known))}. "
            "Install the TensorFlow build that has the device you want."
        )
    with tf.device(target):
        return tf.identity(x)


def gradient_risk(x):
    if not isinstance(x, tf.Variable) and not isinstance(x, tf.__internal__.EagerTensor):
        return "is traced by tf.function"
    if record.should_record_backprop((tf.convert_to_tensor(x),)):
        return "is watched by a tf.GradientTape"
    return None


def missing_dtype(name):
    return None
