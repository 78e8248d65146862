"""The mathematics under the sequence mixers: one package an engine.

Each engine package holds `naive` (numpy, float64, plain loops), its forms in `keras.ops`, and one
public function that dispatches. `cache` holds the past of the engines that look back at every
position.
"""
