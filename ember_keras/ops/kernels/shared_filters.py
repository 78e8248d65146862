"""How channels meet the filters that they share, without a copy of a filter for each.

Of u ``(B, T, D)`` and a filter ``(taps, F)`` with F a divisor of D, filter f is that of the
channels ``f D / F .. (f + 1) D / F - 1``.
"""

from keras import ops


def by_filter(x, filters):
    """Return x ``(B, T, D)`` as ``(B, F, D / F, T)``."""
    time, width = int(x.shape[1]), int(x.shape[2])
    return ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, filters, width // filters, time))


def by_channel(x):
    """Undo `by_filter`."""
    filters, share, time = (int(n) for n in x.shape[1:])
    return ops.transpose(ops.reshape(x, (-1, filters * share, time)), (0, 2, 1))


def weighted(u, k):
    """Return u ``(B, T, D)`` times ``(T, F)`` or ``(B, T, F)``: each weight times its channels."""
    time, width, filters = int(u.shape[1]), int(u.shape[2]), int(k.shape[-1])
    if filters == width:
        return u * k
    grouped = ops.reshape(u, (-1, time, filters, width // filters))
    return ops.reshape(grouped * k[..., None], (-1, time, width))


def repeated(k, width):
    """Return ``(.., F)`` as ``(.., D)``, for the few weights that are not worth a regrouping."""
    share = width // int(k.shape[-1])
    return k if share == 1 else ops.repeat(k, share, axis=-1)
