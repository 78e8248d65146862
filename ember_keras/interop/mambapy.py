"""Layers of the package `mambapy`."""

from __future__ import annotations

from typing import Any

from ember_keras.interop import transformers
from ember_keras.layers import Mamba


def mamba(module: Any) -> Mamba:
    """A `MambaBlock` of `mambapy` as an `ember_keras.layers.Mamba`.

    Its weights have the names that transformers uses. The norm and the residual around it are a
    block's.

    Args:
        module: mambapy's MambaBlock, with or without `inner_layernorms`.

    Returns:
        Mamba, built, with the weights of the module.

    Example:

    >>> from mambapy.mamba import MambaBlock, MambaConfig  # doctest: +SKIP
    >>> mixer = mamba(MambaBlock(MambaConfig(d_model=16, n_layers=1)))  # doctest: +SKIP
    """
    return transformers.mamba(module)
