"""Models: stacks of blocks with a head."""

from ember_keras.models.causal_lm import CausalLM
from ember_keras.models.past import Past
from ember_keras.models.pretrained import from_pretrained, load_tokenizer, save_pretrained
from ember_keras.models.saving import (
    LoadError,
    load_model,
    load_weights,
    save_model,
    save_weights,
)
from ember_keras.models.sequence_model import SequenceModel
from ember_keras.models.stream import Piece, Stream
from ember_keras.models.summary_models import SequenceClassifier, SequenceRegressor

__all__ = [
    "CausalLM",
    "LoadError",
    "Past",
    "Piece",
    "SequenceClassifier",
    "SequenceModel",
    "SequenceRegressor",
    "Stream",
    "from_pretrained",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "save_model",
    "save_pretrained",
    "save_weights",
]
