"""What runs is the installed wheel, and it is all there."""

import importlib.metadata
import os
from pathlib import Path

import pytest
from project.source import PACKAGE

import ember_keras

in_tox = pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="runs the wheel in tox only")


@in_tox
def test_the_wheel_is_tested_and_not_the_source_tree():
    installed = Path(ember_keras.__file__).parent
    assert "site-packages" in installed.parts

    def files(root):
        return {path.relative_to(root) for path in root.rglob("*") if path.suffix != ".pyc"}

    assert {f for f in files(PACKAGE) if f.suffix} == {f for f in files(installed) if f.suffix}


def test_the_version_is_the_distribution_s():
    assert ember_keras.__version__ == importlib.metadata.version("ember-keras")
