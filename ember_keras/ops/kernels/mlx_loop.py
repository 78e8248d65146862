"""The time loop on mlx: block after block of positions, with a gradient of its own.

mlx has no loop: it writes every position out. Differentiated whole, the gradient of each position's
slice is a tensor as long as the sequence, and `mx.compile` compares all users of a tensor with each
other. In blocks a slice is as long as a block, and a tensor has few users. The gradient keeps the
states between blocks and runs a block again.
"""

import mlx.core as mx
from keras import tree

from ember_keras.ops.kernels.gradient import with_gradient

BLOCK = 64
"""Positions that are differentiated together."""


def run(loop, state, xs, weights):
    """Return ``(ys, state)`` of ``loop(state, xs, weights)``.

    Args:
        loop: function that runs all positions of `xs`, one after another.
        state: nest of tensors.
        xs: nest of tensors with the same first length.
        weights: nest of tensors.
    """
    count = int(tree.flatten(xs)[0].shape[0])
    if count <= BLOCK:
        return loop(state, xs, weights)
    nests, shape = (state, xs, weights), []

    def forward(*leaves):
        state, xs, weights = tree.pack_sequence_as(nests, list(leaves))
        borders, ys = [], []
        for start in range(0, count, BLOCK):
            part = _part(xs, start)
            if ys:  # A block is done before the next begins.
                part, weights = _after((part, weights), (ys[-1], state))
            borders.append(state)
            y, state = loop(state, part, weights)
            ys.append(y)
        ys = tree.map_structure(lambda *each: mx.concatenate(each), *ys)
        borders = tree.map_structure(lambda *each: mx.stack(each), *borders)
        shape[:] = [(ys, state)]
        return tuple(tree.flatten((ys, state))), tuple(tree.flatten(borders))

    def backward(inputs, residuals, cotangent):
        state, xs, weights = tree.pack_sequence_as(nests, list(inputs))
        borders = tree.pack_sequence_as(state, residuals)
        y_slope, slope = tree.pack_sequence_as(shape[0], cotangent)
        found, total, order = [], None, mx.array(_order(count))
        for start in reversed(range(0, count, BLOCK)):
            given = (_part(xs, start), _part(y_slope, start), weights)
            if found:
                given = _after(given, (found[-1], slope, total))
            before = tree.map_structure(lambda leaf: leaf[start // BLOCK], borders)  # noqa: B023
            slope, dx, dweights = _slopes(loop, before, *given, slope)
            found.append(dx)
            total = dweights if total is None else [a + b for a, b in zip(total, dweights)]  # noqa: B905
        # The last block first, as they were made: `mx.compile` goes through its graph from the
        # results by recursion, and would be as deep in it as the sequence is long.
        dxs = [mx.take(mx.concatenate(each), order, axis=0) for each in zip(*found, strict=True)]
        return (*tree.flatten(slope), *_spread(xs, dxs), *_spread(weights, total))

    leaves = tree.flatten(nests)
    result = with_gradient(forward, backward, saved=range(len(leaves)))(*leaves)
    return tree.pack_sequence_as(shape[0], result)


def _order(count):
    """Where each position is among blocks of which the last comes first."""
    starts = range(0, count, BLOCK)
    made = [at for start in reversed(starts) for at in range(start, min(start + BLOCK, count))]
    where = {at: place for place, at in enumerate(made)}
    return [where[at] for at in range(count)]


def _slopes(loop, state, xs, y_slope, weights, slope):
    """The gradients of a block, for the floating leaves alone: a nest and two lists."""
    held = (state, _floating(xs), _floating(weights))
    sizes = [len(tree.flatten(nest)) for nest in held]

    def block(*leaves):
        first, *rest = _cut(leaves, sizes)
        here = tree.pack_sequence_as(state, first)
        result = loop(here, _filled(xs, rest[0]), _filled(weights, rest[1]))
        return tree.flatten(result)

    _, slopes = mx.vjp(block, tree.flatten(held), tree.flatten((y_slope, slope)))
    before, dxs, dweights = _cut(slopes, sizes)
    return tree.pack_sequence_as(state, before), dxs, dweights


def _cut(leaves, sizes):
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
    return [list(leaves[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _part(nest, start):
    return tree.map_structure(lambda leaf: leaf[start : start + BLOCK], nest)


def _after(nest, earlier):
    """Return `nest`, which is not there before `earlier` is."""
    return tree.pack_sequence_as(nest, mx.depends(tree.flatten(nest), tree.flatten(earlier)))


def _is_floating(leaf):
    return mx.issubdtype(leaf.dtype, mx.floating)


def _floating(nest):
    return [leaf for leaf in tree.flatten(nest) if _is_floating(leaf)]


def _filled(nest, floating):
    """Return `nest` with other floating leaves."""
    floating = iter(floating)
    return tree.map_structure(lambda leaf: next(floating) if _is_floating(leaf) else leaf, nest)


def _spread(nest, slopes):
    """The gradients of all leaves of `nest`, None for those that are not floating."""
    slopes = iter(slopes)
    return [next(slopes) if _is_floating(leaf) else None for leaf in tree.flatten(nest)]
