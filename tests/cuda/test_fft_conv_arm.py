"""The kernel for Arm processors, compiled by a cross compiler and run by an emulator."""

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fft_conv_cases import TOLERANCES, Case, assert_close, random_case

from ember_keras.cuda import build, library

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
ROOT = "/usr/aarch64-linux-gnu"
"""Where Debian keeps the libraries of an Arm processor."""

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason=f"{COMPILER} and {EMULATOR} are not installed",
    ),
]


class Emulated:
    """`Library`'s two calls, each in a process of its own under the emulator."""

    def __init__(self, folder):
        shared = build.build(folder, COMPILER)
        self._program = folder / "call"
        source, header = Path(__file__).with_name("call.cpp"), Path(build.__file__).parent
        command = [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-I", header, source, shared]
        subprocess.run([*command, f"-Wl,-rpath,{folder}", "-o", self._program], check=True)
        self.isa = None

    def forward(self, u, k, d=None, gate_in=None, gate_out=None, out=None, threads=1, **options):
        conv = library.describe(u, k, **options)
        library.lay_out(conv, {"u": u, "gate_in": gate_in, "gate_out": gate_out, "y": out})
        self._run(conv, (u, k, d, gate_in, gate_out, out), threads, backward=False)
        return out

    def backward(
        self, u, k, g, d=None, gate_in=None, gate_out=None, out=None, threads=1, **options
    ):
        conv = library.describe(u, k, **options)
        arrays = {"u": u, "gate_in": gate_in, "gate_out": gate_out, "g": g, **out}
        library.lay_out(conv, arrays)
        if out.get("dk") is not None:
            conv.dk_tap, conv.dk_filter = (step // out["dk"].itemsize for step in out["dk"].strides)
        found = (out.get(name) for name in ("du", "dk", "dd", "dgate_in", "dgate_out"))
        self._run(conv, (u, k, d, gate_in, gate_out, g, *found), threads, backward=True)
        return out

    def _run(self, conv, arrays, threads, backward):
        places = [None if x is None else np.lib.array_utils.byte_bounds(x) for x in arrays]
        message = [struct.pack("<qq", threads, backward), bytes(conv)]
        for x, place in zip(arrays, places, strict=True):
            if place is None:
                message.append(struct.pack("<q", -1))
                continue
            low, high = place
            message.append(struct.pack("<qq", high - low, x.ctypes.data - low))
            message.append(ctypes.string_at(low, high - low))
        done = subprocess.run(
            [EMULATOR, "-L", ROOT, self._program],
            input=b"".join(message), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        self.isa = done.stderr.decode().strip()
        at = 0
        for place in places:
            if place is not None:
                low, high = place
                ctypes.memmove(low, done.stdout[at : at + high - low], high - low)
                at += high - low
        assert at == len(done.stdout)


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    return Emulated(tmp_path_factory.mktemp("arm"))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("time", "taps"), [(67, 67), (300, 20), (700, 700), (40, 3)])
def test_values_and_gradients(arm, time, taps, dtype):
    case = Case(
        width=17, filters=17, size=time, taps=taps, length=time, dtype=dtype, gate_in=True,
        gate_out=True, threads=2,
    )  # fmt: skip
    assert_close(arm, case)
    assert arm.isa == "neon"


def test_random_calls(arm):
    for seed in range(60):
        assert_close(arm, random_case(np.random.default_rng(seed)), seed)
