"""Sets the backend up before Keras is imported."""

import ember_keras  # noqa: F401
