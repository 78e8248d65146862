"""The masks that Keras carries on tensors."""

from keras.src.backend import get_keras_mask, set_keras_mask


def mask_of(x):
    """Return the mask that Keras carries on a tensor, or None."""
    return get_keras_mask(x)


def with_mask(x, mask):
    """Return `x` itself, which carries `mask` from now on where it is not None."""
    if mask is not None:
        set_keras_mask(x, mask)
    return x
