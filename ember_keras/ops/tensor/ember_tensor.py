"""EmberTensor: a tensor that hides which library computes it."""

import importlib

import keras
import numpy as np
from keras import ops

from ember_keras import backend
from ember_keras.ops.tensor import indexing
from ember_keras.ops.tensor.data_types import DType, dtype_of
from ember_keras.ops.tensor.libraries import (
    convert,
    library,
    library_of,
    refuse_gradient_loss,
)
from ember_keras.ops.tensor.operators import Operators

ARRAY_API_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")


class EmberTensor(Operators):
    """One tensor of the running backend, with the same behaviour on all of them.

    Use it for code that should not know the backend: data preparation, losses, evaluation,
    libraries that follow the Python array API standard. It holds the backend's tensor itself and
    copies nothing, so a gradient flows through it as through the tensor. It cannot be changed in
    place. To make one from numbers or from another library's tensor, use `ember_keras.ops.asarray`.

    Args:
        value: Tensor of the running backend, a `keras.Variable` (its value now), or an EmberTensor.

    Attributes:
        value: The backend tensor.

    Example:

    >>> import ember_keras as ek
    >>> x = ek.ops.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> x @ x.T - 1
    EmberTensor([[ 4., 10.],
                 [10., 24.]], dtype=float32, device='cpu:0')
    """

    __slots__ = ("__weakref__", "_value")

    # Numpy's own operators leave `array + x` to `x.__radd__`.
    __array_priority__ = 1000

    def __init__(self, value):
        if isinstance(value, EmberTensor):
            value = value._value
        elif isinstance(value, keras.Variable):
            value = ops.convert_to_tensor(value)
        elif not ops.is_tensor(value):
            raise TypeError(
                f"Received a value of type {type(value).__module__}.{type(value).__name__}. "
                f"Expected a tensor of the running backend, {backend.name()}. "
                "Use `ember_keras.ops.asarray(value)`, which converts."
            )
        # Numpy reduces to scalars that are no arrays: wrap the array of no dimensions.
        self._value = np.asarray(value) if isinstance(value, np.generic) else value

    def _like(self, result):
        """A result of `keras.ops`, wrapped unless it is the symbol of a functional model."""
        return type(self)(result) if ops.is_tensor(result) else result

    @property
    def _library(self):
        return library(library_of(self._value))

    # Attributes

    @property
    def value(self):
        """The backend tensor, itself and not a copy."""
        return self._value

    @property
    def shape(self):
        """Tuple of sizes, `None` for a size that is not known while a graph is traced."""
        return tuple(self._value.shape)

    @property
    def dtype(self):
        """The dtype, comparable with strings and with every library's dtypes."""
        return dtype_of(self._value)

    @property
    def device(self):
        """The name of the device that holds the values, for example `'cpu:0'` or `'cuda:0'`."""
        return self._library.device(self._value)

    @property
    def ndim(self):
        """The number of dimensions."""
        return len(self._value.shape)

    @property
    def size(self):
        """The number of elements, `None` where a size is not known."""
        total = 1
        for size in self.shape:
            if size is None:
                return None
            total *= size
        return total

    @property
    def T(self):
        """The transpose of a matrix, shape `(M, N) -> (N, M)`."""
        if self.ndim != 2:
            raise ValueError(
                f"Received a tensor of shape {self.shape} for `.T`. Expected two dimensions. "
                "Use `.mT` for a stack of matrices, or `ember_keras.ops.permute_dims`."
            )
        return self.mT

    @property
    def mT(self):
        """The transpose of a stack of matrices, shape `(..., M, N) -> (..., N, M)`."""
        if self.ndim < 2:
            raise ValueError(
                f"Received a tensor of shape {self.shape} for `.mT`. "
                "Expected at least two dimensions. Add one with `x[None]`."
            )
        return self._like(ops.swapaxes(self._value, -1, -2))

    # Elements

    def __getitem__(self, key):
        if isinstance(key, tuple):
            key = tuple(item._value if isinstance(item, EmberTensor) else item for item in key)
        elif isinstance(key, EmberTensor):
            key = key._value
        return self._like(get_item(self._value, key))

    def __setitem__(self, key, value):
        raise TypeError(
            "Received an assignment to elements of an EmberTensor. Expected none: it is immutable, "
            "so that it behaves the same on every backend and keeps its gradient. "
            "Make a new tensor with `ember_keras.ops.where(mask, new, x)`, "
            "`ember_keras.ops.slice_update(x, start, new)` or "
            "`ember_keras.ops.scatter_update(x, indices, new)`."
        )

    def __len__(self):
        if self.ndim == 0 or self.shape[0] is None:
            raise TypeError(
                f"Received a tensor of shape {self.shape} for `len`. Expected at least one "
                "dimension, with a known size. Use `x.size` for the number of elements."
            )
        return self.shape[0]

    def __iter__(self):
        length = len(self)
        return (self[place] for place in range(length))

    # Scalars

    def _scalar(self, kind, keeps_gradient):
        if self.size != 1:
            raise TypeError(
                f"Received a tensor of shape {self.shape} for `{kind}(x)`. "
                "Expected exactly one element. Reduce it first, for example with "
                "`ember_keras.ops.any`, `all`, `sum` or `mean`."
            )
        if keeps_gradient or _is_traced(self._value):
            refuse_gradient_loss(self._value, f"`{kind}(x)`")
        return self._library.to_numpy(self._value).reshape(()).item()

    def __bool__(self):
        return bool(self._scalar("bool", keeps_gradient=False))

    def __int__(self):
        return int(self._scalar("int", keeps_gradient=False))

    def __float__(self):
        return float(self._scalar("float", keeps_gradient=True))

    def __complex__(self):
        return complex(self._scalar("complex", keeps_gradient=True))

    def __index__(self):
        if "int" not in self.dtype:
            raise TypeError(
                f"Received a tensor of dtype {self.dtype} as an index. Expected an integer dtype. "
                "Cast it with `.astype('int32')`."
            )
        return self._scalar("operator.index", keeps_gradient=False)

    # Gradients

    def detach(self):
        """The same values without a gradient: an EmberTensor on the same memory where possible."""
        return self._like(ops.stop_gradient(self._value))

    # Conversions

    def astype(self, dtype):
        """The same values as another dtype; this tensor where it has that dtype already."""
        dtype = dtype_of(dtype)
        check_dtype(dtype)
        return self if dtype == self.dtype else self._like(ops.cast(self._value, str(dtype)))

    def numpy(self):
        """The values as a read-only numpy array that shares memory where the backend can.

        Raises `ValueError` where a gradient would be lost: call `.detach()` first.
        """
        array = convert(self._value, "numpy").view()
        array.flags.writeable = False
        return array

    def to(self, library):
        """The tensor as another library's own, sharing memory where both can.

        Args:
            library: 'numpy', 'torch', 'jax', 'tensorflow' or 'mlx'.

        Returns:
            A tensor of that library; for the running backend's own, `value` itself.
        """
        return self.numpy() if library == "numpy" else convert(self._value, library)

    @classmethod
    def from_(cls, x):
        """An EmberTensor of another library's tensor, sharing memory where both can.

        Args:
            x: Tensor of numpy, torch, jax, tensorflow or mlx.

        Returns:
            An EmberTensor of the same shape and dtype.
        """
        name = library_of(x)
        if name is None:
            raise TypeError(
                f"Received a value of type {type(x).__name__}. Expected a tensor of numpy, torch, "
                "jax, tensorflow or mlx. Use `ember_keras.ops.asarray` for numbers and lists."
            )
        if name == "numpy":
            x = np.asarray(x)
        return cls(convert(x, backend.name()))

    def to_device(self, device, /, *, stream=None):
        """The tensor on a device, for example `x.to_device('cuda:0')`; itself if it is there."""
        if stream is not None:
            raise ValueError(
                f"Received stream={stream!r}. Expected None: the backends order their own work. "
                "Leave `stream` out."
            )
        return self._like(self._library.to_device(self._value, str(device)))

    def __array__(self, dtype=None, copy=None):
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(
                    f"Received copy=False for a conversion from {array.dtype} to {dtype}. Expected "
                    "copy=None or True, as a cast copies. Leave `copy` out."
                )
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_namespace__(self, /, *, api_version=None):
        if api_version is not None and api_version not in ARRAY_API_VERSIONS:
            raise ValueError(
                f"Received api_version={api_version!r}. "
                f"Expected one of {', '.join(ARRAY_API_VERSIONS)}, or None. Leave it out."
            )
        return importlib.import_module("ember_keras.ops")

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        refuse_gradient_loss(self._value, "a DLPack export")
        options = {"stream": stream, "max_version": max_version, "dl_device": dl_device}
        options = {key: item for key, item in {**options, "copy": copy}.items() if item is not None}
        return self._library.to_dlpack(self._value, **options)

    def __dlpack_device__(self):
        return self._library.dlpack_device(self._value)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        from ember_keras.ops.tensor.nests import call_unwrapped

        return call_unwrapped(function, *args, **(kwargs or {}))

    def __jax_array__(self):
        return self.to("jax")

    def __tf_tensor__(self, dtype=None, name=None):
        import tensorflow as tf

        return tf.convert_to_tensor(self.to("tensorflow"), dtype=dtype, name=name)

    # `tf.nest`, `tf.function` and `tf.GradientTape` see one component.

    def __tf_flatten__(self):
        return (), (self._value,)

    @classmethod
    def __tf_unflatten__(cls, metadata, components):
        value = components[0]  # None for a gradient that does not exist.
        return cls(value) if ops.is_tensor(value) else value

    # Copies and pickles

    def __copy__(self):
        return type(self)(self._value)

    def __deepcopy__(self, memo):
        return type(self)(copied(self._value))

    def __reduce__(self):
        return _unpickled, (self.numpy().copy(), str(self.dtype))

    def __repr__(self):
        if _is_traced(self._value):
            return f"EmberTensor(shape={self.shape}, dtype={self.dtype}, traced)"
        values = self._library.to_numpy(self._value)
        if self.dtype.startswith(("bfloat", "float8")):  # Numpy prints these without a point.
            values = values.astype("float32")
        text = np.array2string(values, separator=", ", prefix="EmberTensor(")
        return f"EmberTensor({text}, dtype={self.dtype}, device={self.device!r})"


def copied(x):
    """A copy of a backend tensor on memory of its own; the gradient flows through it."""
    result = ops.copy(x)
    if not may_share(result, x):
        return result
    # TensorFlow and MLX hand the same memory on, which may be another library's.
    own = library(library_of(x))
    return own.from_numpy(own.to_numpy(x).copy())


def may_share(x, y):
    """Whether two tensors of any libraries, free of gradients, lie on the same memory."""
    modules = [library(library_of(item)) for item in (x, y)]
    if any(module.gradient_risk(item) for module, item in zip(modules, (x, y), strict=True)):
        return False
    views = [module.to_numpy(item) for module, item in zip(modules, (x, y), strict=True)]
    return views[0].size > 0 and np.shares_memory(*views)


def get_item(x, key):
    """The elements of a backend tensor that a key free of EmberTensors names."""
    return indexing.get_item(x, key, tuple(x.shape), _is_traced, _host)


def _host(x):
    return library(library_of(x)).to_numpy(x)


def _is_traced(x):
    """Whether the values of a backend tensor cannot be read now."""
    name = library_of(x)
    reason = library(name).gradient_risk(x) if name else None
    return reason is not None and "traced" in reason


def _unpickled(array, dtype):
    check_dtype(DType(dtype))
    return EmberTensor.from_(array).astype(dtype)


def check_dtype(dtype):
    """Raises `ValueError` where the running backend has no such dtype."""
    reason = library(backend.name()).missing_dtype(dtype)
    if reason is not None:
        raise ValueError(
            f"Received dtype={str(dtype)!r}, which {reason}. Expected a dtype that the "
            f"{backend.name()} backend holds exactly. Choose a narrower one."
        )
