"""Compiles kernels into shared libraries: C++, and CUDA where asked for.

The C++ kernel's binding to mlx is compiled for the mlx that is installed: `build_mlx`. The
environment variable `CXX` names the compiler, and may hold its first options, as in `ccache g++`.

It imports nothing of this package, so `setup.py` may run it before the package is installed.
"""

import concurrent.futures
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
NAME = "_fft_conv_cpu.so"
COMPILERS = ("c++", "g++", "clang++")
COMMON = (
    *("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "-pthread"),
)
AVX512 = tuple(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))
ISAS = {
    "portable": (16, ()),
    "avx2": (32, ("-mavx2", "-mfma")),
    "avx512": (64, ("-mavx2", "-mfma", *AVX512, "-mprefer-vector-width=512")),
}
PLAIN = (
    "check",
    "cpu/experts",
    "cpu/grouped",
    "cpu/interface",
    "cpu/plan",
    "cpu/schedule",
    "cpu/threads",
    "cpu/xla",
)
KERNELS = ("kernel", "grouped_kernel", "experts_kernel")
"""Compiled once for each instruction set."""
INTEL = ("x86_64", "AMD64")

GPU_NAME = "_fft_conv_gpu.so"
TWIN_NAME = "fft_conv_twin.so"
GPU_SOURCES = ("check.cpp", "gpu/schedule.cpp", "gpu/xla.cpp", "gpu/fft_conv.cu")
CARDS = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities that the CUDA kernel is compiled for; later ones compile it when it runs."""
TENSOR_CARDS = (80, 90)
"""Those of them that make products of matrices on tensor cores."""

MLX_MODULE = "_fft_conv_mlx"
_KNOWS_ARRAYS = """
import runpy, sys
import mlx.core as mx
module = runpy.run_path(sys.argv[1])["load_mlx"](sys.argv[2])
sys.exit(not module.is_array(mx.array(0)))
"""
NANOBIND = "2.12.0"
"""The nanobind that mlx 0.31 was built with: two of them do not know each other's arrays."""


class BuildError(RuntimeError):
    """The library could not be built; the text says why in one sentence."""


def find_compiler(asked=None):
    """Return the command of a C++ compiler: its path, and options where they were asked for.

    Args:
        asked: name or path of a compiler, maybe with options, as in `ccache g++`; by default that
            of the environment variable `CXX`, or the first of c++, g++, clang++.
    """
    # This file runs alone too, where nothing of the package can be imported.
    asked = asked or os.environ.get("CXX")  # noqa: TID251
    for name in (asked,) if asked else COMPILERS:
        found = shutil.which(name)
        if found:
            return (found,)
    try:
        words = shlex.split(asked or "")
    except ValueError as error:
        raise BuildError(f"CXX={asked} can't be read as a command: {error}") from error
    found = words and shutil.which(words[0])
    if found:
        return (found, *words[1:])
    missing = asked or ", ".join(COMPILERS)
    raise BuildError(f"no C++ compiler was found (looked for {missing})")


def build(folder, compiler=None, flags=()):
    """Compile the library into a folder.

    Args:
        folder: path of the folder that the library is written to.
        compiler: name or path of a C++ compiler, or its command, see `find_compiler`.
        flags: more flags for compiler and linker.

    Returns:
        The path of the library. Raises `BuildError` with a sentence where it can't be built.
    """
    compiler = _command(compiler)
    target = pathlib.Path(folder) / NAME
    isas = {name: ISAS[name] for name in ISAS if _compiles(compiler, name)}
    has = tuple(f"-DEMBER_HAS_{name.upper()}" for name in isas if name != "portable")
    with tempfile.TemporaryDirectory() as temporary:
        jobs = [(name, name.rpartition("/")[2], has) for name in PLAIN]
        for name, (size, options) in isas.items():
            defined = (f"-DEMBER_ISA={name}", f"-DEMBER_VECTOR_BYTES={size}", *options)
            jobs += [(f"cpu/{source}", f"{source}_{name}", defined) for source in KERNELS]
        objects = [str(pathlib.Path(temporary) / f"{job[1]}.o") for job in jobs]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            commands = [
                (*compiler, *COMMON, *options, *flags, "-c", HERE / f"{source}.cpp", "-o", o)
                for (source, _, options), o in zip(jobs, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        linked = pathlib.Path(temporary) / NAME
        _run((*compiler, "-shared", "-pthread", *flags, *objects, "-o", linked))
        _place(linked, target)
    return target


def find_cuda(home=None):
    """Return the path of nvcc: in the toolkit's folder, or on the path, or in its usual place."""
    folders = [home] if home else [None, "/usr/local/cuda"]
    for folder in folders:
        found = shutil.which("nvcc" if folder is None else f"{folder}/bin/nvcc")
        if found:
            return found
    places = home or "the path and /usr/local/cuda"
    raise BuildError(f"no CUDA compiler was found (looked for nvcc in {places})")


def build_gpu(folder, compiler=None, flags=()):
    """Compile the library for graphics cards into a folder.

    Args:
        folder: path of the folder that the library is written to.
        compiler: path of nvcc; by default the first that is found.
        flags: more flags for nvcc.

    Returns:
        The path of the library, and what the compiler said.
    """
    target = pathlib.Path(folder) / GPU_NAME
    cards = [
        f"-gencode=arch=compute_{80 if card in TENSOR_CARDS else CARDS[0]},code=sm_{card}"
        for card in CARDS
    ]
    cards.append(f"-gencode=arch=compute_{CARDS[0]},code=compute_{CARDS[0]}")
    sources = [HERE / source for source in GPU_SOURCES]
    options = (
        "-std=c++17",
        "-O3",
        "--shared",
        "--threads=2",
        "-Xcompiler=-fPIC,-fvisibility=hidden",
    )
    with tempfile.TemporaryDirectory() as temporary:
        linked = pathlib.Path(temporary) / GPU_NAME
        said = _run((compiler or find_cuda(), *options, *cards, *flags, *sources, "-o", linked))
        _place(linked, target)
    return target, said


def build_twin(folder, flags=("-O2",)):
    """Compile the kernel for graphics cards for the processor, where its threads take turns.

    Args:
        folder: path of the folder that the library is written to.
        flags: flags for the C++ compiler.

    Returns:
        The path of the library, and what the compiler said.
    """
    target = pathlib.Path(folder) / TWIN_NAME
    sources = [HERE / source for source in GPU_SOURCES]
    options = ("-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", *flags, "-x", "c++")
    return target, _run((*find_compiler(), *options, *sources, "-o", target))


def mlx_name(version):
    """Return the file name of the binding to one version of mlx and of Python."""
    return f"{MLX_MODULE}-{version}{sysconfig.get_config_var('EXT_SUFFIX')}"


def build_mlx(folder, compiler=None, flags=()):
    """Compile the C++ kernel's binding to the installed mlx into a folder.

    Args:
        folder: path of the folder that the binding is written to.
        compiler: name or path of a C++ compiler, or its command, see `find_compiler`.
        flags: more flags for the compiler.

    Returns:
        The path of the binding. Raises `BuildError` with a sentence where it can't be built.
    """
    compiler = _command(compiler)
    roots = {name: importlib.util.find_spec(name) for name in ("mlx", "nanobind")}
    for name, wanted in (("mlx", "mlx"), ("nanobind", f"nanobind=={NANOBIND}")):
        if roots[name] is None:
            raise BuildError(f"{name} is not installed: pip install {wanted}")
    mlx, nanobind = (pathlib.Path(roots[name].submodule_search_locations[0]) for name in roots)
    includes = (
        *(mlx / "include", nanobind / "include", nanobind / "ext" / "robin_map" / "include"),
        sysconfig.get_path("include"),
    )
    target = pathlib.Path(folder) / mlx_name(importlib.metadata.version("mlx"))
    options = (
        *("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-strict-aliasing"),
        *("-Wall", "-Wextra", "-DNDEBUG", "-DNB_DOMAIN=mlx", f"-L{mlx / 'lib'}", *flags),
    )
    if sys.platform == "darwin":
        options += ("-undefined", "dynamic_lookup", f"-Wl,-rpath,{mlx / 'lib'}")
    sources = (HERE / "cpu" / "mlx.cpp", nanobind / "src" / "nb_combined.cpp")
    with tempfile.TemporaryDirectory() as temporary:
        linked = pathlib.Path(temporary) / target.name
        found = [f"-isystem{path}" for path in includes]
        _run((*compiler, *options, *found, *sources, "-lmlx", "-o", linked))
        check = (sys.executable, "-c", _KNOWS_ARRAYS, HERE / "build.py", linked)
        if subprocess.run(check, capture_output=True).returncode:  # noqa: S603
            raise BuildError(
                f"mlx {importlib.metadata.version('mlx')} was built with another nanobind than "
                f"{importlib.metadata.version('nanobind')}: pip install nanobind=={NANOBIND}"
            )
        _place(linked, target)
    return target


def load_mlx(path):
    """Return the module of a binding to mlx."""
    spec = importlib.util.spec_from_file_location(MLX_MODULE, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _command(compiler):
    return compiler if isinstance(compiler, tuple) else find_compiler(compiler)


def _compiles(compiler, name):
    """Whether the compiler knows an instruction set's flags."""
    if name == "portable":
        return True
    if platform.machine() not in INTEL:
        return False
    command = (*compiler, *ISAS[name][1], "-x", "c++", "-fsyntax-only", "-")
    return subprocess.run(command, input=b"", capture_output=True).returncode == 0  # noqa: S603


def _place(made, target):
    """Put a finished file in its place at once: one that a process has loaded stays whole."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(made, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _run(command):
    """Run a compiler, whose last argument is the file that it writes."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    except OSError as error:
        raise BuildError(f"{command[0]} can't be run: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        said = (lines[0] if lines else done.stderr[:300]).strip()
        raise BuildError(f"{command[0]} failed: {said or f'exit status {done.returncode}'}")
    if not os.path.exists(command[-1]):
        raise BuildError(f"{command[0]} wrote no {os.path.basename(command[-1])}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    try:
        build(HERE)
    except BuildError as error:
        sys.exit(f"The kernel was not built: {error}.")
