"""What sequence mixers share."""

from ember_keras.layers.common.rotary import apply_rotary, token_positions
from ember_keras.layers.common.short_convolution import ShortConvolution

__all__ = ["ShortConvolution", "apply_rotary", "token_positions"]
