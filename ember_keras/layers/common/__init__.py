"""What sequence mixers share."""

from ember_keras.layers.common.rotary import apply_rotary, token_positions
from ember_keras.layers.common.short_convolution import ShortConvolution
from ember_keras.layers.common.token_shift import TokenShift

__all__ = ["ShortConvolution", "TokenShift", "apply_rotary", "token_positions"]
