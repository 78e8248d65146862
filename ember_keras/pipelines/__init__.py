"""Pipelines: training, evaluation, prediction and generation, as configurations name them."""

from ember_keras.pipelines.comparison import Comparison, compare_backends
from ember_keras.pipelines.errors import InputError, RunError
from ember_keras.pipelines.inference import Evaluation, Generation, Prediction, Predictions
from ember_keras.pipelines.settings import SampleSettings, TrainingSettings
from ember_keras.pipelines.training import Training, TrainingResult

__all__ = [
    "Comparison",
    "Evaluation",
    "Generation",
    "InputError",
    "Prediction",
    "Predictions",
    "RunError",
    "SampleSettings",
    "Training",
    "TrainingResult",
    "TrainingSettings",
    "compare_backends",
]
