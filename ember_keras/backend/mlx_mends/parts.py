"""The two classes that stock Keras asks of every backend and `keras_mlx` 0.0.1 does not have."""


class MLXLayer:
    """The backend's share of `keras.layers.Layer`: nothing, as for numpy."""


class MLXExportArchive:
    """The backend's share of `keras.export.ExportArchive`: MLX has no SavedModel."""

    def __init__(self):
        raise NotImplementedError(
            "`export_saved_model` only currently supports the tensorflow, jax and torch backends. "
            "Received the mlx backend. Save with `model.save('model.keras')`, load it under one "
            "of them and export there."
        )
