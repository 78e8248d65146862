"""Models: stacks of blocks with a head."""

from ember_keras.models import presets
from ember_keras.models.autoencoder import Autoencoder
from ember_keras.models.causal_lm import CausalLM
from ember_keras.models.costs import Estimate, estimate
from ember_keras.models.decay import decay_groups, exclude_from_decay
from ember_keras.models.feature_extractor import FeatureExtractor
from ember_keras.models.forecaster import Forecaster, ForecastMetric, PinballLoss
from ember_keras.models.past import Past
from ember_keras.models.position_models import MaskedLM, TokenClassifier
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
    "Autoencoder",
    "CausalLM",
    "Estimate",
    "FeatureExtractor",
    "ForecastMetric",
    "Forecaster",
    "LoadError",
    "MaskedLM",
    "Past",
    "Piece",
    "PinballLoss",
    "SequenceClassifier",
    "SequenceModel",
    "SequenceRegressor",
    "Stream",
    "TokenClassifier",
    "decay_groups",
    "estimate",
    "exclude_from_decay",
    "from_pretrained",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "presets",
    "save_model",
    "save_pretrained",
    "save_weights",
]
