"""Blocks: a norm, a mixer and a residual, the unit that models stack."""

from ember_keras.blocks.block import Block

__all__ = ["Block"]
