"""The grouped matrix product engine: rows sorted by group, a matrix for each group."""

from ember_keras.ops.engines.grouped_matmul.engine import grouped_matmul

__all__ = ["grouped_matmul"]
