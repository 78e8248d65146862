"""The C interface of `fft_conv.h` through ctypes, on numpy arrays.

The NumPy binding and the tests call the kernel here; other frameworks fill in the same structure.
"""

import ctypes
import functools
import os
import pathlib

import numpy as np

from ember_keras.cuda import build

FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = range(4)
FORWARD, BACKWARD = range(2)
BEST, PORTABLE, AVX2, AVX512 = range(4)
VERSION = 1
DTYPES = {"float32": FLOAT32, "float64": FLOAT64, "float16": FLOAT16, "bfloat16": BFLOAT16}


@functools.cache
def load():
    """Return ``(library, None)``, or None and the reason in a sentence where there is none."""
    return _loaded(
        Library,
        build.NAME,
        "this installation was built without it: there was no C++ compiler, or EMBER_CPU_KERNEL=0 "
        "left it out. Install one, such as g++, and install the package again.",
    )


@functools.cache
def load_gpu():
    """Return ``(library, None)`` for graphics cards, or None and the reason in a sentence."""
    return _loaded(
        GpuLibrary,
        build.GPU_NAME,
        "this installation was built without it, and no graphics card has run it yet. Install "
        "nvcc, set EMBER_CUDA=1, and install the package again from its source.",
    )


def load_part(kind, version):
    """Return ``(kind(path), None)`` of the library that holds the kernel, or None and the reason.

    Args:
        kind: class of another interface of the same file, made of its path, with `version()`.
        version: int, which its `version()` must be.
    """
    reason = load()[1]
    return (None, reason) if reason else _opened(kind, build.NAME, version)


def _loaded(kind, name, absent):
    path = _path(name)
    if not path.exists():
        return None, absent
    if is_cut_short(path):
        return None, f"{name} is cut short. Install the package again."
    return _opened(kind, name, VERSION)


def _opened(kind, name, version):
    path = _path(name)
    try:
        library = kind(path)
    except (OSError, AttributeError) as error:
        return None, f"{name} can't be loaded: {error}."
    if library.version() != version:
        return None, f"{name} is of another version. Install the package again."
    return library, None


def _path(name):
    return pathlib.Path(build.__file__).resolve().parent / name


def is_cut_short(path):
    """Whether a 64-bit ELF file ends before its table of sections; other kinds are not looked at.

    To load such a file ends the process, with a bus error, where another would be refused.
    """
    with open(path, "rb") as file:
        header = file.read(64)
    if header[:6] != b"\x7fELF\x02\x01":  # 64 bits, the least byte first
        return False
    table = int.from_bytes(header[40:48], "little")
    size, count = (int.from_bytes(header[at : at + 2], "little") for at in (58, 60))
    return len(header) < 64 or os.path.getsize(path) < table + size * count


def cores():
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Strides(ctypes.Structure):
    """Elements from one sequence, position and channel to the next."""

    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "time", "channel")]


class Convolution(ctypes.Structure):
    """`struct ember_fft_conv`: sizes, dtypes and strides of one convolution."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("version", "dtype", "filter_dtype", "isa")),
        *((name, ctypes.c_int64) for name in ("batch", "width", "filters", "size", "taps")),
        *((name, ctypes.c_int64) for name in ("start", "length", "skip", "period")),
        *((name, Strides) for name in ("u", "gate_in", "y", "gate_out")),
        *((name, Strides) for name in ("du", "dgate_in", "dgate_out", "g")),
        *((name, ctypes.c_int64) for name in ("k_tap", "k_filter", "dk_tap", "dk_filter")),
    ]


class Library:
    """The compiled kernel.

    Args:
        path: path of the shared library.
    """

    def __init__(self, path):
        self.path = str(path)
        library = ctypes.CDLL(self.path)
        conv, number, pointer = ctypes.POINTER(Convolution), ctypes.c_int, ctypes.c_void_p
        self.scratch = library.ember_fft_conv_scratch
        self.scratch.argtypes = [conv, number, number]
        self.scratch.restype = ctypes.c_int64
        self.run_forward = library.ember_fft_conv_forward
        self.run_forward.argtypes = [conv, *[pointer] * 7, ctypes.c_int64, number]
        self.run_backward = library.ember_fft_conv_backward
        self.run_backward.argtypes = [conv, *[pointer] * 12, ctypes.c_int64, number]
        self.xla_forward = library.ember_fft_conv_xla_forward
        self.xla_backward = library.ember_fft_conv_xla_backward
        self.say = library.ember_fft_conv_error
        self.say.restype = ctypes.c_char_p
        self._isa = library.ember_fft_conv_isa
        self._isa.restype = ctypes.c_char_p
        self.version = library.ember_fft_conv_version
        self._use_openmp = library.ember_fft_conv_use_openmp
        self._use_openmp.argtypes = [pointer] * 3
        self._use_openmp.restype = None

    def use_openmp(self, owner):
        """Run in the threads of the OpenMP that a shared library is linked to, where there is one.

        Args:
            owner: path of the shared library.

        Returns:
            bool, whether there is one.
        """
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        try:
            linked = ctypes.CDLL(str(owner))
            found = [ctypes.cast(getattr(linked, name), ctypes.c_void_p) for name in names]
        except (OSError, AttributeError):
            return False
        self._use_openmp(*found)
        return True

    def error(self, status):
        """Return the sentence for an error code."""
        return self.say(status).decode()

    def isa(self, requested=BEST):
        """Return the name of the instruction set that a request gets, or None."""
        name = self._isa(requested)
        return name and name.decode()

    def forward(self, u, k, d=None, gate_in=None, gate_out=None, out=None, **options):
        """Return ``y (B, length, D)`` of u ``(B, N, D)`` and k ``(taps, F)``.

        Args:
            u: array ``(B, N, D)`` with any strides; bfloat16 as uint16, with ``dtype="bfloat16"``.
            k: array ``(taps, F)``.
            d: array ``(D,)`` or None.
            gate_in: array like u, or None.
            gate_out: array like y, or None.
            out: the array y to write to, or None.
            options: of `describe`, and `threads`.
        """
        threads = options.pop("threads", 1)
        conv = describe(u, k, **options)
        if out is None:
            out = np.empty((conv.batch, conv.length, conv.width), u.dtype)
        arrays = {"u": u, "gate_in": gate_in, "gate_out": gate_out, "y": out}
        lay_out(conv, arrays)
        pointers = (_address(array) for array in (u, k, d, gate_in, gate_out, out))
        self._check(self.run_forward(conv, *pointers, None, 0, threads))
        return out

    def backward(self, u, k, g, d=None, gate_in=None, gate_out=None, out=None, **options):
        """Return the gradients for a cotangent g of y, by name.

        Args:
            u: as for `forward`; so are k, d and the gates.
            k: as for `forward`.
            g: array like y.
            d: as for `forward`.
            gate_in: as for `forward`.
            gate_out: as for `forward`.
            out: dict of the gradients to write: some of du, dk, dd, dgate_in and dgate_out.
            options: of `describe`, and `threads`.
        """
        threads = options.pop("threads", 1)
        conv = describe(u, k, **options)
        arrays = {"u": u, "gate_in": gate_in, "gate_out": gate_out, "g": g, **out}
        lay_out(conv, arrays)
        if out.get("dk") is not None:
            conv.dk_tap, conv.dk_filter = _steps(out["dk"])
        names = ("du", "dk", "dd", "dgate_in", "dgate_out")
        inputs = (_address(array) for array in (u, k, d, gate_in, gate_out, g))
        outputs = (_address(out.get(name)) for name in names)
        self._check(self.run_backward(conv, *inputs, *outputs, None, 0, threads))
        return out

    def _check(self, status):
        if status:
            raise ValueError(f"the kernel refused: {self.error(status)}")


class Card(ctypes.Structure):
    """`struct ember_card`: what a graphics card has."""

    _fields_ = [
        (name, ctypes.c_int64) for name in ("shared_bytes", "processors", "cache_bytes", "tensor")
    ]


class Plan(ctypes.Structure):
    """`struct ember_gpu_plan`: how a card computes a call."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("points", "columns", "channels", "blocks", "items", "launches"),
            *("shared_bytes", "tensor"),
        )
    ]


class GpuLibrary:
    """The kernel for graphics cards, or its twin on the processor.

    Args:
        path: path of the shared library.
    """

    def __init__(self, path):
        self.path = str(path)
        library = ctypes.CDLL(self.path)
        conv, card = ctypes.POINTER(Convolution), ctypes.POINTER(Card)
        number, bytes_, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
        self._scratch = library.ember_gpu_fft_conv_scratch
        self._scratch.argtypes = [conv, card, number, number]
        self._scratch.restype = bytes_
        self._forward = library.ember_gpu_fft_conv_forward
        self._forward.argtypes = [conv, card, *[pointer] * 7, bytes_, pointer]
        self._backward = library.ember_gpu_fft_conv_backward
        self._backward.argtypes = [conv, card, *[pointer] * 12, bytes_, pointer]
        self._cards = {}
        self._plan = library.ember_gpu_fft_conv_plan
        self._plan.argtypes = [conv, card, number, number, ctypes.POINTER(Plan)]
        self._card = library.ember_gpu_card
        self._card.argtypes = [number, card]
        self.xla_forward = library.ember_gpu_fft_conv_xla_forward
        self.xla_backward = library.ember_gpu_fft_conv_xla_backward
        self._error = library.ember_gpu_error
        self._error.restype = ctypes.c_char_p
        self.version = library.ember_gpu_version

    def card(self, index):
        """Return the `Card` of a number."""
        if index not in self._cards:
            card = Card()
            self.check(self._card(index, card))
            self._cards[index] = card
        return self._cards[index]

    def plan(self, conv, card, backward=False, filters=False):
        """Return the `Plan` of a call."""
        plan = Plan()
        self.check(self._plan(conv, card, int(backward), 3 if filters else 1, plan))
        return plan

    def scratch_bytes(self, conv, card, backward=False, filters=False):
        """Return how much scratch a call takes."""
        found = self._scratch(conv, card, int(backward), 3 if filters else 1)
        self.check(-min(found, 0))
        return found

    def forward(self, conv, card, pointers, scratch, scratch_bytes, stream=None):
        """Start the convolution of u, k, d, gate_in and gate_out into y: six addresses or None."""
        self.check(self._forward(conv, card, *pointers, scratch, scratch_bytes, stream))

    def backward(self, conv, card, pointers, scratch, scratch_bytes, stream=None):
        """Start the gradients: the addresses of u, k, d, the gates, g, and of what is written."""
        self.check(self._backward(conv, card, *pointers, scratch, scratch_bytes, stream))

    def check(self, status):
        """Raise ValueError with the sentence of an error code."""
        if status:
            raise ValueError(f"the kernel refused: {self._error(status).decode()}")


def describe(u, k, start=0, length=None, skip=None, period=0, isa=BEST, dtype=None, filters=None):
    """Return the `Convolution` of u ``(B, N, D)`` with k ``(taps, F)``.

    Args:
        u: array ``(B, N, D)``.
        k: array ``(taps, F)``.
        start: int, the first position wanted.
        length: int, how many; by default N.
        skip: int, the position that d multiplies in the first output; by default `start`.
        period: int, 0 for none.
        isa: the instruction set asked for.
        dtype: name of the dtype of u where it is bfloat16.
        filters: name of the dtype of k where it is bfloat16.
    """
    dtype = dtype or u.dtype.name
    conv = Convolution(version=VERSION, isa=isa, start=start, period=period)
    conv.dtype = DTYPES[dtype]
    conv.filter_dtype = DTYPES[filters or (dtype if k.dtype == u.dtype else k.dtype.name)]
    conv.batch, conv.size, conv.width = u.shape
    conv.taps, conv.filters = k.shape
    conv.length = conv.size if length is None else length
    conv.skip = start if skip is None else skip
    conv.k_tap, conv.k_filter = _steps(k)
    return conv


def lay_out(conv, arrays):
    """Write the strides of arrays ``(B, time, D)``, by name, into a `Convolution`."""
    for name, array in arrays.items():
        if array is not None and name not in ("dk", "dd"):
            setattr(conv, name, Strides(*_steps(array)))


def _steps(array):
    return [step // array.itemsize for step in array.strides]


def _address(array):
    return None if array is None else array.ctypes.data
