"""Sums of damped rhythms: what a diagonal recurrence that does not change with time is made of.

A mode is a complex number ``exp(a)``; its a is a pair of tensors ``(D, N)``, the log of the decay
and the angle, and a complex number is a pair of its real and its imaginary part.
"""

from keras import ops

from ember_keras.ops.engines import angles, chunks


def taps(a, c, time):
    """Return ``Re(sum_n c_n exp(s a_n))`` for s < time, ``(time, D)``.

    With ``s = i P + j`` and P about the root of `time` it is one product of matrices a channel:
    no array is larger than the result, or than one ``(P, D, N)``.
    """
    size = 1
    while size * size < time:
        size *= 2
    coarse = times(c, powers(a, -(-time // size), size))
    fine = powers(a, size, 1)
    left = ops.concatenate([coarse[0], -coarse[1]], axis=-1)
    right = ops.concatenate(fine, axis=-1)
    y = ops.matmul(ops.transpose(left, (1, 0, 2)), ops.transpose(right, (1, 2, 0)))
    y = ops.transpose(y, (1, 2, 0))
    return ops.reshape(y, (-1, int(y.shape[2])))[:time]


def powers(a, count, stride, first=0):
    """Return ``exp(stride (first + i) a)`` for i < count, a pair of ``(count, D, N)``."""
    if count > chunks.CHUNK:
        coarse = powers(a, -(-count // chunks.CHUNK), stride * chunks.CHUNK)
        fine = powers(a, chunks.CHUNK, stride, first)
        both = times(tuple(x[:, None] for x in coarse), fine)
        tail = tuple(int(n) for n in a[0].shape)
        return tuple(ops.reshape(x, (-1, *tail))[:count] for x in both)
    place = stride * (first + ops.arange(count, dtype="int32"))
    return power(a, place[:, None, None])


def power(a, exponent):
    """Return ``exp(exponent a)``, a pair, for an int32 tensor >= 0 that broadcasts against a."""
    size = a[0] * ops.cast(exponent, a[0].dtype)
    return exponential((size, angles.multiple(angles.parts(a[1]), exponent)))


def exponential(a):
    """Return ``exp(a)``, a pair."""
    size = ops.exp(a[0])
    return size * ops.cos(a[1]), size * ops.sin(a[1])


def times(x, y):
    """Return the product of two complex numbers."""
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]
