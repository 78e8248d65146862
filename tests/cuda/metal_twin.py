"""Metal's kernels on the processor, in place of `mlx.core.fast.metal_kernel`."""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np

from ember_keras.cuda import build, metal

HERE = Path(__file__).parent
OPTIONS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-fPIC", f"-I{build.HERE}")
TYPES = {"float32": "float", "float16": "float16_t", "bfloat16": "bfloat16_t", "int32": "int"}
MEMORY = re.compile(r"threadgroup float2 tile\[(\d+)\];")


class MetalTwin:
    """Compiles and runs what it is given, as mlx's documentation describes its arguments."""

    def __init__(self, folder):
        self.folder, self.backwards, self.programs = folder, False, {}
        words = folder / "words.h"
        words.write_text(f'#include "{HERE}/metal_words.h"\n')
        self.compiler(words, "-o", folder / "words.h.gch")

    def compiler(self, *arguments):
        command = [*build.find_compiler(), *OPTIONS, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr

    def metal_kernel(
        self, name, input_names, output_names, source, header="", ensure_row_contiguous=True,
        atomic_outputs=False,
    ):  # fmt: skip
        assert ensure_row_contiguous and not atomic_outputs and name.isidentifier()

        def call(*, inputs, template, grid, threadgroup, output_shapes, output_dtypes):
            import mlx.core as mx

            arrays = [as_numpy(x) for x in inputs]
            kinds = [str(x.dtype).rpartition(".")[2] for x in inputs]
            outputs = [str(x).rpartition(".")[2] for x in output_dtypes]
            results = [
                np.full(shape, 7, "uint16" if kind == "bfloat16" else kind)
                for shape, kind in zip(output_shapes, outputs, strict=True)
            ]
            self.run(
                (name, header, source), (input_names, output_names), arrays, results,
                (kinds, outputs), template, grid, threadgroup,
            )  # fmt: skip
            return [
                mx.array(x).view(mx.bfloat16) if kind == "bfloat16" else mx.array(x)
                for x, kind in zip(results, outputs, strict=True)
            ]

        return call

    def run(self, text, names, arrays, results, kinds, template, grid, threadgroup):
        assert grid[0] % threadgroup[0] == 0 and threadgroup[1:] == (1, 1) and grid[2] == 1
        types = [(key, TYPES[str(kind).rpartition(".")[2]]) for key, kind in template]
        key = (text, *map(tuple, kinds), *types)
        if key not in self.programs:
            self.programs[key] = self.compile(text, names, kinds, types)
        library, words = self.programs[key]
        library.ember_backwards(int(self.backwards))
        pointers = [x.ctypes.data for x in (*arrays, *results)]
        fault = library.call(
            (ctypes.c_void_p * len(pointers))(*pointers), *grid[:2], threadgroup[0]
        )
        assert not fault, fault.decode()

    def compile(self, text, names, kinds, types):
        name, header, source = text
        (words,) = MEMORY.findall(source)
        body = MEMORY.sub(f"shared::float2* const tile = threadgroup_memory<{words}>();", source)
        inputs = [f"const {TYPES[kind]}* {x}" for x, kind in zip(names[0], kinds[0], strict=True)]
        outputs = [f"{TYPES[kind]}* {x}" for x, kind in zip(names[1], kinds[1], strict=True)]
        given = [
            f"({each.rpartition(' ')[0]})pointers[{i}]"
            for i, each in enumerate((*inputs, *outputs))
        ]
        positions = (f"uint3 {each}" for each in metal.POSITIONS)
        parameters = ", ".join((*inputs, *outputs, *positions))
        path = self.folder / f"{name}_{len(self.programs)}.cpp"
        path.write_text(
            f'#include "words.h"\n{header}\n'
            f"template <{', '.join(f'class {key}' for key, _ in types)}>\n"
            f"void kernel({parameters}) {{\n{body}\n}}\n"
            f"""
            extern "C" const char* call(void** pointers, int x, int y, int threads) {{
              return run([&](uint3 a, uint3 b) {{
                kernel<{", ".join(kind for _, kind in types)}>({", ".join(given)}, a, b);
              }}, x, y, threads, {words});
            }}
            extern "C" void ember_backwards(int yes) {{ ember::gpu::backwards = yes != 0; }}
            """
        )
        library = path.with_suffix(".so")
        self.compiler("-shared", path, "-o", library)
        loaded = ctypes.CDLL(str(library))
        loaded.call.restype = ctypes.c_char_p
        loaded.call.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * 3]
        return loaded, int(words)


def as_numpy(x):
    import mlx.core as mx

    if x.dtype == mx.bfloat16:
        return np.ascontiguousarray(np.array(x.view(mx.uint16)))
    return np.ascontiguousarray(np.array(x))
