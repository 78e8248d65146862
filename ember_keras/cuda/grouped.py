"""The C interface of `grouped.h` through ctypes, on numpy arrays and on addresses."""

import ctypes
import functools

import numpy as np

from ember_keras.cuda import library

VERSION = 1


@functools.cache
def load():
    """Return ``(kernel, None)``, or None and the reason in a sentence where there is none."""
    return library.load_part(Kernel, VERSION)


class Sizes(ctypes.Structure):
    """`struct ember_grouped`: the sizes of one call."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("version", "isa", "transposed", "threads")),
        *((name, ctypes.c_int64) for name in ("rows", "groups", "inner", "width")),
    ]


class Kernel:
    """The compiled grouped products.

    Args:
        path: path of the shared library.
    """

    def __init__(self, path):
        linked = ctypes.CDLL(str(path))
        arguments = [ctypes.POINTER(Sizes), *[ctypes.c_void_p] * 4]
        self._rows, self._weights = linked.ember_grouped_rows, linked.ember_grouped_weights
        self._rows.argtypes = self._weights.argtypes = arguments
        self._error = linked.ember_grouped_error
        self._error.restype = ctypes.c_char_p
        self.version = linked.ember_grouped_version
        self.xla_rows = linked.ember_grouped_xla_rows
        self.xla_weights = linked.ember_grouped_xla_weights

    def rows(self, x, w, offsets, y, *, transposed=False, threads=1, isa=library.BEST):
        """Fill ``y (M, F)`` with the product of each row of x with its group's matrix.

        Args:
            x: dense float32 array ``(M, D)``, or any object with `shape` and an address, see
                `address`.
            w: the same ``(E, D, F)``, or ``(E, F, D)`` where it is used `transposed`.
            offsets: int32 ``(E + 1,)``.
            y: the same ``(M, F)``.
            transposed: bool.
            threads: int.
            isa: int, an instruction set of `library`.
        """
        sizes = Sizes(VERSION, isa, transposed, threads, x.shape[0], w.shape[0], x.shape[1])
        sizes.width = y.shape[1]
        expected = (
            w.shape[0],
            *((y.shape[1], x.shape[1]) if transposed else (x.shape[1], y.shape[1])),
        )
        _agree(tuple(w.shape) == expected and y.shape[0] == x.shape[0])
        _agree(tuple(offsets.shape) == (w.shape[0] + 1,))
        self._check(self._rows(sizes, *map(address, (x, w, offsets, y))))

    def weights(self, x, g, offsets, dw, *, threads=1, isa=library.BEST):
        """Fill ``dw (E, D, F)`` with the sum of each group's outer products of rows of x and g."""
        sizes = Sizes(VERSION, isa, 0, threads, x.shape[0], dw.shape[0], x.shape[1], g.shape[1])
        _agree(tuple(dw.shape[1:]) == (x.shape[1], g.shape[1]) and x.shape[0] == g.shape[0])
        _agree(tuple(offsets.shape) == (dw.shape[0] + 1,))
        self._check(self._weights(sizes, *map(address, (x, g, offsets, dw))))

    def _check(self, status):
        if status:
            raise ValueError(f"grouped_matmul: {self._error(status).decode()}.")


def address(x):
    """Return the address of a numpy array's or a torch tensor's first element."""
    return ctypes.c_void_p(x.ctypes.data if isinstance(x, np.ndarray) else x.data_ptr())


def _agree(whether):
    if not whether:
        raise ValueError("grouped_matmul: received arrays whose shapes do not go together.")
