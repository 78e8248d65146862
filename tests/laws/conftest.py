"""Ember Keras comes before Keras, as MLX needs it, whichever of the law files runs alone."""

import ember_keras  # noqa: F401
