"""`ember_keras` is imported before Keras, as mlx needs it."""

import ember_keras  # noqa: F401
