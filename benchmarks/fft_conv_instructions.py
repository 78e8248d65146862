"""Instructions of the CUDA convolution's passes in the machine code, with tensor cores and without.

    python -m benchmarks.fft_conv_instructions

Needs nvcc and cuobjdump (in the package nvidia-cuda-cuobjdump). Compiled for capability 8.0 is a
forward call in float16 whose first pass has radix 4, without gates, skip and period, so that each
loop of the code is what a call of 1024 points runs; with tensor cores it has no inward and outward
passes, which 16384 points would have. Printed are instructions a point, of all threads together.
"""

import collections
import pathlib
import re
import shutil
import subprocess
import tempfile

from ember_keras.cuda import build

PASSES = ("first", "inward", "middle", "outward", "last")
PIPES = {
    "float": ("FADD", "FMUL", "FFMA", "IMAD"),
    "special": ("MUFU", "I2F", "F2I", "FRND"),
    "shared": ("LDS", "STS"),
    "tensor": ("HMMA",),
}
"""Beginnings of instructions; IMAD shares float32's units on these cards. The rest is integer's."""

SOURCE = """
#include "FOLDER/bodies.h"
using namespace ember::gpu;
struct Plain {
  static constexpr bool kProducts = true;
  Convolve<Half, TENSOR> body;
  EMBER_DEVICE void operator()(const Thread& thread) const {
    Convolve<Half, TENSOR> plain = body;
    plain.x.gate = plain.out.first.gate = nullptr;
    plain.out.second.values = nullptr;
    plain.out.d = nullptr;
    plain.x.period = plain.items.conv.period = 0;
    plain.items.cut.backward = plain.spectra.backward = false;
    plain.spectra.sum = nullptr;
    plain.spectra.returns = true;
    plain.spectra.ratio = 1;
    plain.items.shape.columns.first = 4;
    plain.items.shape.columns.step = plain.items.shape.rows.rows = 1;
    plain(thread);
  }
};
template __global__ void ember::gpu::run(const __grid_constant__ Plain);
"""


def main():
    """Print a table as markdown."""
    header = ("tensor cores", "pass", "all", *PIPES, "integer and rest")
    print(f"| {' | '.join(header)} |")
    print(f"|{' --- |' * len(header)}")
    for tensor in ("false", "true"):
        for name, counts in zip(PASSES, count(tensor), strict=True):
            print(f"| {tensor} | {name} | {' | '.join(f'{n:.3g}' for n in counts)} |")


def count(tensor):
    """Return for each pass the instructions a point: all, and those of each pipe."""
    tool = shutil.which("cuobjdump")
    if tool is None:
        raise SystemExit("no cuobjdump was found on the path")
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder) / "plain.cu", pathlib.Path(folder) / "plain.cubin"
        code = SOURCE.replace("FOLDER", str(build.HERE / "gpu")).replace("TENSOR", tensor)
        source.write_text(code)
        command = (
            build.find_cuda(),
            "-std=c++17",
            "-O3",
            "-arch=sm_80",
            "-cubin",
            source,
            "-o",
            binary,
        )
        subprocess.run(command, check=True)  # noqa: S603
        listing = subprocess.run(
            (tool, "-sass", binary), capture_output=True, text=True, check=True
        )  # noqa: S603
    found = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+\s+)?([^;]*);", listing.stdout)
    code = [(int(place, 16), text) for place, text in found]
    return [per_point(loop) for loop in innermost(code)]


def innermost(code):
    """Return the loops that contain no other, as lists of instructions."""
    loops = []
    for end, text in code:
        target = re.match(r"BRA\b.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < end:
            loops.append((int(target[1], 16), end))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [[t for place, t in code if a <= place <= b] for a, b in sorted(inner)]


def per_point(loop):
    """Return the instructions of a loop over the points of one round: all, and by pipe."""
    names = collections.Counter(text.split()[0].split(".")[0] for text in loop)
    points = max(names["LDS"], names["STS"])
    pipes = [sum(names[name] for name in pipe) for pipe in PIPES.values()]
    return [n / points for n in (len(loop), *pipes, len(loop) - sum(pipes))]


if __name__ == "__main__":
    main()
