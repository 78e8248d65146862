"""Tasks: data to train and score on, as `ember_keras.registry.tasks` names them."""

from ember_keras.tasks.base import Split, Task, TaskData
from ember_keras.tasks.batches import Batches
from ember_keras.tasks.byte_text import ByteText
from ember_keras.tasks.compression import Compression
from ember_keras.tasks.forecasting import Forecasting
from ember_keras.tasks.in_context_recall import InContextRecall
from ember_keras.tasks.masked_text import MaskedText
from ember_keras.tasks.state_tracking import StateTracking
from ember_keras.tasks.time_series import TimeSeries

__all__ = [
    "Batches",
    "ByteText",
    "Compression",
    "Forecasting",
    "InContextRecall",
    "MaskedText",
    "Split",
    "StateTracking",
    "Task",
    "TaskData",
    "TimeSeries",
]
