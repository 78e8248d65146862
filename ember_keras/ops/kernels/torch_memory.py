"""Memory for what a forward pass keeps, which the last backward pass gave up.

The C library hands 32 MiB and more back to the system when a tensor goes, and every step of a
training waits again while the system clears the same pages. Here a block goes to a list, and the
next call that asks for as much writes to it. What lies in the list is marked as free: the system
takes it where memory is short.
"""

import contextlib
import math
import mmap
import threading
import weakref

import numpy as np
import torch

SMALLEST = 2 << 20
"""Bytes of a result from which it pays: a large page."""


class Blocks:
    """Blocks of memory that no tensor uses, by their size.

    A size that is not there makes room: all the others are given up, so that what is kept is at
    most what the calls of one step use.

    Example:

    >>> blocks = Blocks()
    >>> blocks.empty(1024, 1024).shape
    torch.Size([1024, 1024])
    >>> blocks.idle_bytes()
    4194304
    """

    def __init__(self):
        self._idle = {}
        self._lock = threading.RLock()  # A tensor may go, and leave its block, at any line here.

    def empty(self, *shape):
        """Return a float32 tensor of a shape, on the processor, with any numbers in it."""
        size = 4 * math.prod(shape)
        if size < SMALLEST:
            return torch.empty(shape)
        block = self._take(size)
        array = np.frombuffer(block, np.float32).reshape(-1)
        # torch holds the array as long as any tensor on its memory lives.
        weakref.finalize(array, self._leave, block).atexit = False
        return torch.from_numpy(array).view(shape)

    def idle_bytes(self):
        """Return how many bytes wait for the next call."""
        with self._lock:
            return sum(size * len(blocks) for size, blocks in self._idle.items())

    def _take(self, size):
        with self._lock:
            if self._idle.get(size):
                return self._idle[size].pop()
            self._idle.clear()
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _leave(self, block):
        with contextlib.suppress(AttributeError, OSError):  # No such advice on this system.
            block.madvise(mmap.MADV_FREE)
        with self._lock:
            self._idle.setdefault(len(block), []).append(block)


BLOCKS = Blocks()
"""Those that the kernels share."""
