"""Saving and loading: files are written whole or not at all, and nothing in a file is run."""

from ember_keras.models.saving.api import load_model, load_weights, save_model, save_weights
from ember_keras.models.saving.errors import LoadError

__all__ = ["LoadError", "load_model", "load_weights", "save_model", "save_weights"]
