"""Callbacks for anyone's `fit`: a time budget, safe saving, a stop on NaN, any length."""

from ember_keras.callbacks.budget import BudgetedSchedule, TimeBudget
from ember_keras.callbacks.finite import StopOnNaN
from ember_keras.callbacks.lengths import CompileEachLength
from ember_keras.callbacks.routers import RouterReport
from ember_keras.callbacks.saving import SaveEveryEpoch

__all__ = [
    "BudgetedSchedule",
    "CompileEachLength",
    "RouterReport",
    "SaveEveryEpoch",
    "StopOnNaN",
    "TimeBudget",
]
