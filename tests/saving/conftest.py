"""Fixtures of the saving tests."""

import ember_keras  # noqa: F401  # isort: skip  # Before keras, which it teaches mlx.
import pytest
from saving import cases


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A small model and its files."""
    return cases.good_files(tmp_path_factory.mktemp("good"))
