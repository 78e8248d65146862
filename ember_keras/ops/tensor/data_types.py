"""Data types: names, promotion, limits (array API chapter "Data type functions")."""

import dataclasses

import keras
import ml_dtypes
import numpy as np

_PYTHON_TYPES = (bool, int, float, complex)


class DType(str):
    """The name of a dtype that compares with every library's own dtypes.

    It is a string, so Keras and numpy take it wherever they take a dtype's name.

    Example:

    >>> import numpy as np
    >>> DType("float32") == np.float32, DType("float32") == "float32", DType("float32").itemsize
    (True, True, 4)
    """

    __slots__ = ()

    @property
    def itemsize(self):
        """Bytes an element."""
        return np.dtype(_numpy_type(self)).itemsize

    def __eq__(self, other):
        if isinstance(other, str):
            return str.__eq__(self, other)
        if other is None or (isinstance(other, type) and other in _PYTHON_TYPES):
            return NotImplemented
        try:
            return str.__eq__(self, keras.backend.standardize_dtype(other))
        except (ValueError, TypeError):
            return NotImplemented

    def __ne__(self, other):
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = str.__hash__

    def __repr__(self):
        return str(self)


def _numpy_type(name):
    return getattr(ml_dtypes, name) if name.startswith(("bfloat", "float8")) else str(name)


bool = DType("bool")
int8 = DType("int8")
int16 = DType("int16")
int32 = DType("int32")
int64 = DType("int64")
uint8 = DType("uint8")
uint16 = DType("uint16")
uint32 = DType("uint32")
uint64 = DType("uint64")
float16 = DType("float16")
bfloat16 = DType("bfloat16")
float32 = DType("float32")
float64 = DType("float64")
complex64 = DType("complex64")
complex128 = DType("complex128")

_SIGNED = frozenset((int8, int16, int32, int64))
_UNSIGNED = frozenset((uint8, uint16, uint32, uint64))
_REAL = frozenset((float16, bfloat16, float32, float64))
_COMPLEX = frozenset((complex64, complex128))
_KINDS = {
    "bool": frozenset((bool,)),
    "signed integer": _SIGNED,
    "unsigned integer": _UNSIGNED,
    "integral": _SIGNED | _UNSIGNED,
    "real floating": _REAL,
    "complex floating": _COMPLEX,
    "numeric": _SIGNED | _UNSIGNED | _REAL | _COMPLEX,
}
_REAL_PART = {"complex64": float32, "complex128": float64}


def dtype_of(x):
    """The `DType` of a tensor of any library, or of a dtype in any library's spelling."""
    # A class such as `np.int32` is a dtype, though it has a `dtype` for its instances.
    return DType(
        keras.backend.standardize_dtype(x if isinstance(x, type) else getattr(x, "dtype", x))
    )


def isdtype(dtype, kind):
    """Whether a dtype is of a kind.

    Args:
        dtype: A dtype, in any library's spelling.
        kind: A dtype, one of 'bool', 'signed integer', 'unsigned integer', 'integral',
            'real floating', 'complex floating', 'numeric', or a tuple of these.

    Returns:
        A Python bool.

    Example:

    >>> isdtype("bfloat16", ("integral", "real floating"))
    True
    """
    if isinstance(kind, tuple):
        return any([isdtype(dtype, item) for item in kind])
    name = dtype_of(dtype)
    if isinstance(kind, str) and not isinstance(kind, DType) and kind in _KINDS:
        return name in _KINDS[kind]
    try:
        return name == dtype_of(kind)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Received kind={kind!r}. Expected a dtype or one of {', '.join(map(repr, _KINDS))}. "
            "Name one of them, or a tuple of them."
        ) from error


def result_type(*arrays_and_dtypes):
    """The dtype that an operation on the arguments gives, by Keras's promotion rules.

    Args:
        arrays_and_dtypes: One or more tensors, dtypes, or Python scalars; a scalar takes the dtype
            of the tensors beside it where its kind allows.

    Returns:
        A `DType`.

    Example:

    >>> result_type("bfloat16", 1.0), result_type("int8", "uint8")
    (bfloat16, int16)
    """
    if not arrays_and_dtypes:
        raise ValueError(
            "Received no argument. Expected at least one tensor, dtype or scalar. "
            "Call for example `result_type(x, 'float32')`."
        )
    items = [
        type(item) if isinstance(item, _PYTHON_TYPES) else dtype_of(item)
        for item in arrays_and_dtypes
    ]
    return DType(keras.backend.result_type(*items))


def can_cast(from_, to, /):
    """Whether promotion alone turns the first dtype into the second.

    Args:
        from_: A tensor or a dtype.
        to: A dtype.

    Returns:
        A Python bool.

    Example:

    >>> can_cast("int8", "int16"), can_cast("float32", "int32")
    (True, False)
    """
    return result_type(from_, to) == dtype_of(to)


@dataclasses.dataclass(frozen=True)
class FloatInfo:
    """The limits of a floating-point dtype, of the real part where it is complex."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclasses.dataclass(frozen=True)
class IntegerInfo:
    """The limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type, /):
    """The limits of a floating-point dtype.

    Args:
        type: A tensor or a dtype, real or complex floating.

    Returns:
        A record with `bits`, `eps`, `max`, `min`, `smallest_normal` and `dtype`.

    Example:

    >>> finfo("bfloat16").eps
    0.0078125
    """
    name = dtype_of(type)
    name = _REAL_PART.get(name, name)
    if name not in _REAL:
        raise ValueError(
            f"Received dtype={name}. Expected a real or complex floating dtype. "
            "For integers call `iinfo`."
        )
    info = ml_dtypes.finfo(_numpy_type(name))
    values = (float(v) for v in (info.eps, info.max, info.min, info.smallest_normal))
    return FloatInfo(info.bits, *values, name)


def iinfo(type, /):
    """The limits of an integer dtype.

    Args:
        type: A tensor or a dtype, signed or unsigned integer.

    Returns:
        A record with `bits`, `max`, `min` and `dtype`.

    Example:

    >>> iinfo("uint8").max
    255
    """
    name = dtype_of(type)
    if not isdtype(name, "integral"):
        raise ValueError(
            f"Received dtype={name}. Expected an integer dtype. For floats call `finfo`."
        )
    info = np.iinfo(name)
    return IntegerInfo(info.bits, int(info.max), int(info.min), name)
