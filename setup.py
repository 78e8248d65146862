"""Builds the package, and with it the C++ kernel where there is a compiler.

Metadata and tools are configured in pyproject.toml. Without a compiler the package is whole and
portable; `CXX` names another compiler, and may hold its first options; `EMBER_CPU_KERNEL=0` leaves
the kernel out.
`EMBER_CUDA=1` builds the CUDA kernel too, with the nvcc of `CUDA_HOME` or the first that is found.
"""

import functools
import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
FOLDER = Path("ember_keras") / "cuda"


def builder():
    """Return `ember_keras/cuda/build.py`, which imports nothing of the package."""
    spec = importlib.util.spec_from_file_location("build_kernel", HERE / FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def compiler():
    """Return a C++ compiler, or None where the kernel is not wanted or cannot be built."""
    if os.environ.get("EMBER_CPU_KERNEL") == "0":
        say("EMBER_CPU_KERNEL=0: installing without the C++ kernel. All else works.")
        return None
    build = builder()
    try:
        return build.find_compiler()
    except build.BuildError as error:
        say(f"{error}: installing without the C++ kernel. All else works.")
        return None


@functools.cache
def cuda_compiler():
    """Return nvcc where the CUDA kernel is asked for and can be built, or None."""
    if os.environ.get("EMBER_CUDA") != "1":
        return None
    build = builder()
    try:
        return build.find_cuda(os.environ.get("CUDA_HOME"))
    except build.BuildError as error:
        say(f"{error}: installing without the CUDA kernel. All else works.")
        return None


def say(line):
    """Print one line where whoever installs can see it."""
    print(f"ember-keras: {line}", file=sys.stderr)


FAILED = set()
"""Kinds of kernels that did not compile."""


def compilers():
    """Return the compiler of each kind of kernel that may yet be built."""
    found = {"C++": compiler(), "CUDA": cuda_compiler()}
    return {kind: each for kind, each in found.items() if each and kind not in FAILED}


class BuildWithKernel(build_py):
    """Copies the package, and compiles the kernels into the copy."""

    def run(self):
        super().run()
        build = builder()
        target = HERE / FOLDER if self.editable_mode else Path(self.build_lib) / FOLDER
        kinds = {
            "C++": (build.NAME, build.build),
            "CUDA": (build.GPU_NAME, build.build_gpu),
        }
        for kind, (name, compile_into) in kinds.items():
            found = compilers().get(kind)
            try:
                if found:
                    compile_into(target, found)
            except build.BuildError as error:
                FAILED.add(kind)
                say(f"{error}: installing without the {kind} kernel. All else works.")
            if kind not in compilers():  # What an earlier build left is of other sources.
                (target / name).unlink(missing_ok=True)
        wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if wheel:
            wheel.root_is_pure = not self.distribution.has_ext_modules()


class AnyPython(bdist_wheel):
    """A wheel for every Python 3 of a platform: the kernel knows nothing of Python."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


class MaybeCompiled(Distribution):
    """A distribution that is bound to a platform where a kernel is built."""

    def has_ext_modules(self):
        return bool(compilers())


setup(cmdclass={"build_py": BuildWithKernel, "bdist_wheel": AnyPython}, distclass=MaybeCompiled)
