"""The graphics card's kernels, compiled for the processor, behind `Library`'s methods."""

import ctypes

import numpy as np

from ember_keras.cuda import build, library

GRADIENTS = ("du", "dk", "dd", "dgate_in", "dgate_out")


def compile_twin(folder, flags=("-O2",)):
    """Compile the twin into a folder, without a warning, and return the library's path."""
    path, said = build.build_twin(folder, flags)
    assert not said, said
    return path


class Twin:
    """The twin with a card of given properties."""

    def __init__(self, path, shared_bytes=48 * 1024, processors=4, cache_bytes=1 << 18, tensor=0):
        self.card = library.Card(shared_bytes, processors, cache_bytes, tensor)
        self.backwards = False
        self._library = library.GpuLibrary(path)
        self._turn = ctypes.CDLL(str(path)).ember_gpu_twin_backwards

    def forward(self, u, k, d=None, gate_in=None, gate_out=None, out=None, threads=1, **options):
        conv = library.describe(u, k, **options)
        scratch = self._scratch(conv)
        if out is None:
            out = np.empty((conv.batch, conv.length, conv.width), u.dtype)
        library.lay_out(conv, {"u": u, "gate_in": gate_in, "gate_out": gate_out, "y": out})
        self._call(self._library.forward, conv, (u, k, d, gate_in, gate_out, out), scratch)
        return out

    def backward(
        self, u, k, g, d=None, gate_in=None, gate_out=None, out=None, threads=1, **options
    ):
        conv = library.describe(u, k, **options)
        scratch = self._scratch(conv, True, out.get("dk") is not None)
        arrays = {"u": u, "gate_in": gate_in, "gate_out": gate_out, "g": g, **out}
        library.lay_out(conv, arrays)
        if out.get("dk") is not None:
            conv.dk_tap, conv.dk_filter = (step // out["dk"].itemsize for step in out["dk"].strides)
        inputs = (u, k, d, gate_in, gate_out, g)
        self._call(self._library.backward, conv, (*inputs, *map(out.get, GRADIENTS)), scratch)
        return out

    def plan(self, u, k, *wanted, **options):
        return self._library.plan(library.describe(u, k, **options), self.card, *wanted)

    def _scratch(self, conv, *wanted):
        """Exactly as much as is asked for, and full of what spoils a result."""
        size = self._library.scratch_bytes(conv, self.card, *wanted)
        return np.full(size // 4, np.nan, np.float32)

    def _call(self, function, conv, arrays, scratch):
        self._turn(int(self.backwards))
        pointers = [None if array is None else array.ctypes.data for array in arrays]
        function(conv, self.card, pointers, scratch.ctypes.data, scratch.nbytes)
