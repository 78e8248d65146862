"""Builds the package. Metadata and tools are configured in pyproject.toml.

Native kernels will be built from here; today the package is pure Python and needs no compiler.
"""

from setuptools import setup

setup()
