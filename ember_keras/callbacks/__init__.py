"""Callbacks for anyone's `fit`: a time budget and its schedule, safe saving, a stop on NaN."""

from ember_keras.callbacks.budget import BudgetedSchedule, TimeBudget
from ember_keras.callbacks.finite import StopOnNaN
from ember_keras.callbacks.saving import SaveEveryEpoch

__all__ = ["BudgetedSchedule", "SaveEveryEpoch", "StopOnNaN", "TimeBudget"]
