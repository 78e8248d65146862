"""What runs is the installed wheel, and it is all there."""

import importlib.metadata
import os
from pathlib import Path

import pytest
from project.source import PACKAGE

import ember_keras
from ember_keras.cuda import build

KERNEL = Path("cuda/_fft_conv_cpu.so")
"""Built with the wheel; beside the source only where `make kernel` put it."""


def has_compiler():
    try:
        return bool(build.find_compiler())
    except build.BuildError:
        return False


in_tox = pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="runs the wheel in tox only")


@in_tox
def test_the_wheel_is_tested_and_not_the_source_tree():
    installed = Path(ember_keras.__file__).parent
    assert "site-packages" in installed.parts

    def files(root):
        paths = {path.relative_to(root) for path in root.rglob("*") if path.suffix}
        paths = {path for path in paths if not path.name.startswith("_fft_conv_mlx-")}
        return {path for path in paths if path.suffix != ".pyc"} - {KERNEL}

    assert files(PACKAGE) == files(installed)
    assert (installed / KERNEL).exists() == has_compiler()


def test_the_version_is_the_distribution_s():
    assert ember_keras.__version__ == importlib.metadata.version("ember-keras")
