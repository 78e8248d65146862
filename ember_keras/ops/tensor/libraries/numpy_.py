"""Numpy: the library that every other one can meet."""

import numpy as np


def to_numpy(x):
    return np.asarray(x)


def from_numpy(array):
    return array


def from_dlpack(x):
    return np.from_dlpack(x)


def compact(x):
    return np.ascontiguousarray(x) if x.ndim else x


def to_dlpack(x, **options):
    return np.asarray(x).__dlpack__(**options)


def dlpack_device(x):
    return np.asarray(x).__dlpack_device__()


def device(x):
    return "cpu:0"


def to_device(x, device):
    if device not in ("cpu", "cpu:0"):
        raise ValueError(
            f"Received device={device!r}. Expected 'cpu:0', the only device of the numpy backend. "
            "Choose a backend with other devices through KERAS_BACKEND."
        )
    return x


def gradient_risk(x):
    return None


def missing_dtype(name):
    return "has no numpy type" if name.startswith("float8") else None
