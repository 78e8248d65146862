"""The long convolution engine: filters as long as the sequence, by FFT."""

from ember_keras.ops.engines.fft_conv.engine import fft_conv, fft_conv_state, taps_needed

__all__ = ["fft_conv", "fft_conv_state", "taps_needed"]
