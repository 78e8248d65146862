"""The nonlinear scan engine: a true time loop around any cell."""

from ember_keras.ops.engines.nonlinear_scan.engine import nonlinear_scan

__all__ = ["nonlinear_scan"]
