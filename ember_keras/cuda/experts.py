"""The C interface of `experts.h` through ctypes, on numpy arrays and on addresses."""

import ctypes
import functools

from ember_keras.cuda import library
from ember_keras.cuda.grouped import address

VERSION = 1
BLOCK = 16
"""Hidden units lie in blocks of so many."""


@functools.cache
def load():
    """Return ``(kernel, None)``, or None and the reason in a sentence where there is none."""
    return library.load_part(Kernel, VERSION)


class Sizes(ctypes.Structure):
    """`struct ember_experts`: the sizes of one call."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("version", "isa")),
        *(
            (name, ctypes.c_int64)
            for name in ("threads", "tokens", "slots", "experts", "width", "hidden")
        ),
    ]


class Kernel:
    """The compiled mixture of gated perceptrons.

    Args:
        path: path of the shared library.
    """

    def __init__(self, path):
        linked = ctypes.CDLL(str(path))
        sizes, pointer = ctypes.POINTER(Sizes), ctypes.c_void_p
        self._forward, self._backward = linked.ember_experts_forward, linked.ember_experts_backward
        self._forward.argtypes = [sizes, *[pointer] * 7]
        self._backward.argtypes = [sizes, *[pointer] * 11]
        self._error = linked.ember_experts_error
        self._error.restype = ctypes.c_char_p
        self.version = linked.ember_experts_version
        self.xla_forward = linked.ember_experts_xla_forward
        self.xla_backward = linked.ember_experts_xla_backward

    def forward(self, inputs, y, kept=None, *, threads=1, isa=library.BEST):
        """Fill ``y (N, D)``, and ``kept`` where the gradients are to come.

        Args:
            inputs: dense arrays, or any objects with `shape` and an address: x ``(N, D)``, chosen
                int32 ``(N, K)``, weights ``(N, K)``, gate_up ``(E, D, 2 F)`` and down
                ``(E, F, D)``, float32.
            y: the same.
            kept: the same ``(N, kept_width(K, F))``, or None.
            threads: int.
            isa: int, an instruction set of `library`.
        """
        sizes = _sizes(inputs, threads, isa)
        _agree(y, (sizes.tokens, sizes.width))
        if kept is not None:
            _agree(kept, (sizes.tokens, kept_width(sizes.slots, sizes.hidden)))
        kept = None if kept is None else address(kept)
        self._check(self._forward(sizes, *map(address, (*inputs, y)), kept))

    def backward(self, inputs, kept, g, slopes, *, threads=1, isa=library.BEST):
        """Fill the gradients for x, weights, gate_up and down, for a cotangent ``g (N, D)``."""
        sizes = _sizes(inputs, threads, isa)
        _agree(g, (sizes.tokens, sizes.width))
        _agree(kept, (sizes.tokens, kept_width(sizes.slots, sizes.hidden)))
        like = (inputs[0], *inputs[2:])
        for slope, each in zip(slopes, like, strict=True):
            _agree(slope, tuple(each.shape))
        self._check(self._backward(sizes, *map(address, (*inputs, kept, g, *slopes))))

    def _check(self, status):
        if status:
            raise ValueError(f"a mixture of experts: {self._error(status).decode()}.")


def kept_width(slots, hidden):
    """Return how many numbers of a token are kept for the gradients."""
    return slots * 2 * (-(-hidden // BLOCK) * BLOCK)


def _sizes(inputs, threads, isa):
    x, chosen, weights, gate_up, down = inputs
    (tokens, width), slots, (experts, hidden, _) = x.shape, chosen.shape[1], down.shape
    _agree(chosen, (tokens, slots))
    _agree(weights, (tokens, slots))
    _agree(gate_up, (experts, width, 2 * hidden))
    _agree(down, (experts, hidden, width))
    return Sizes(VERSION, isa, threads, tokens, slots, experts, width, hidden)


def _agree(array, shape):
    if tuple(array.shape) != shape:
        raise ValueError(
            f"a mixture of experts: received an array of shape {tuple(array.shape)}, expected "
            f"{shape}."
        )
