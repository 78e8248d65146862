"""The cross-entropy of a head in chunks of positions, whose logits are made twice and kept never.

For the gradient a position keeps the logarithm of its sum alone: its logits are made again, and
with them its share of every gradient. Chunks lie along time, and each has all rows of the batch, so
that a batch that is spread over devices stays so.
"""

from keras import ops

from ember_keras import backend
from ember_keras.ops.kernels.gradient import with_gradient
from ember_keras.ops.kernels.in_place import add_product
from ember_keras.ops.kernels.loops import scan


def run(x, w, bias=None, *, targets, chunk, cap):
    """Return ``(B, T)``; see `ember_keras.ops.linear_cross_entropy`."""

    def forward(x, w, targets, *bias):
        def turn(carry, each):
            x, targets = each
            scores = logits(x, w, *bias, cap=cap)
            most = ops.max(scores, axis=-1, keepdims=True)
            total = ops.log(ops.sum(ops.exp(scores - most), axis=-1)) + most[:, 0]
            own = ops.take_along_axis(scores, targets[:, None], axis=-1)[:, 0]
            return carry, (total - own, total)

        given = (cut(x, chunk), cut(targets, chunk))
        _, (losses, totals) = scan(turn, ops.zeros((), x.dtype), given)
        return join(losses, x), (totals,)

    def backward(inputs, residuals, g):
        x, w, targets, *bias = inputs

        def turn(carry, each):
            x, targets, totals, g = each
            scores = logits(x, w, *bias, cap=cap)
            slope = ops.exp(scores - totals[:, None])
            own = ops.arange(int(w.shape[0]), dtype="int32") == targets[:, None]
            slope = ops.where(own, slope - 1.0, slope) * g[:, None]
            if cap is not None:
                slope = slope * (1.0 - ops.square(scores / cap))
            dw, *db = carry
            dw = add_product(dw, ops.transpose(slope), x)
            db = [each + ops.sum(slope, axis=0) for each in db]
            return (dw, *db), ops.matmul(slope, w)

        given = (cut(x, chunk), cut(targets, chunk), *residuals, cut(g, chunk))
        sums, dx = scan(turn, tuple(ops.zeros_like(each) for each in (w, *bias)), given)
        return (join(dx, x), sums[0], None, *sums[1:])

    others = () if bias is None else (bias,)
    saved = tuple(range(3 + len(others)))
    return with_gradient(forward, backward, saved=saved)(x, w, targets, *others)


def logits(x, w, bias=None, *, cap=None):
    """The logits ``(N, V)`` of positions ``(N, D)``."""
    scores = ops.matmul(x, ops.transpose(w))
    scores = scores if bias is None else scores + bias
    return scores if cap is None else cap * ops.tanh(scores / cap)


def cut(x, chunk):
    """Chunks ``(n, B C, ...)`` of a tensor ``(B, T, ...)``, the last one filled with zeros."""
    length, rest = int(x.shape[1]), tuple(x.shape[2:])
    count = -(-length // chunk)
    missing = count * chunk - length
    if missing:
        x = backend.pad(x, [(0, 0), (0, missing), *((0, 0) for _ in rest)])
    x = ops.reshape(x, (-1, count, chunk, *rest))
    order = (1, 0, 2, *range(3, 3 + len(rest)))
    return ops.reshape(ops.transpose(x, order), (count, -1, *rest))


def join(chunks, like):
    """The tensor ``(B, T, ...)`` of which `cut` made chunks; `like` is ``(B, T, D)``."""
    count, rest = int(chunks.shape[0]), tuple(chunks.shape[2:])
    chunks = ops.reshape(chunks, (count, ops.shape(like)[0], -1, *rest))
    order = (1, 0, 2, *range(3, 3 + len(rest)))
    chunks = ops.transpose(chunks, order)
    whole = ops.reshape(chunks, (ops.shape(like)[0], count * int(chunks.shape[2]), *rest))
    return whole[:, : int(like.shape[1])]
