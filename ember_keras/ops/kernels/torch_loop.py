"""The time loop over the pieces of a traced step, and its gradient."""

import collections

import torch
from keras import tree
from torch.autograd.function import once_differentiable

from ember_keras.ops.kernels.torch_graphs import Cut, Trace, alike

FEW = 16
"""Positions below which the gradient of the weights is summed position by position."""

IN_CACHE = 2**17
"""Numbers of a tensor up to which a block of positions is differentiated at once."""

LEAST = 4
"""Positions of such a block at least."""

AT_ONCE = 64
"""Positions of a block that is differentiated position by position."""

KEPT = 64
"""Traces that are kept, of the last steps and shapes that were used."""

_TRACES: collections.OrderedDict = collections.OrderedDict()


def run(step, state, xs, weights, recompute):
    """Return ``(ys, state)`` of the loop, as `time_loop.run`."""
    nests = (xs, state, weights)
    leaves = [tree.flatten(nest) for nest in nests]
    loop = _loop(step, nests, leaves, recompute or len(leaves[0][0]) < FEW)
    flat = [leaf for group in leaves for leaf in group]
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in flat):
        results = _Gradient.apply(loop, *flat)
    else:
        with torch.no_grad():
            results = loop.infer(leaves)
    y = tree.pack_sequence_as(loop.y, list(results[: loop.num_y]))
    return y, tree.pack_sequence_as(state, list(results[loop.num_y :]))


def _loop(step, nests, leaves, alone):
    kinds = [[(tuple(x.shape), x.dtype, x.device) for x in group] for group in leaves]
    if alone:
        kinds[0] = [(shape[1:], *kind) for shape, *kind in kinds[0]]
    # The paths of a nest are the same for equal nests, and cheap to compare.
    forms = [str(tree.map_structure(lambda leaf: 0, nest)) for nest in nests]
    key = (step, alone, *forms, *map(tuple, kinds))
    if key not in _TRACES:
        _TRACES[key] = _Loop(step, nests, leaves, alone)
        while len(_TRACES) > KEPT:
            _TRACES.popitem(last=False)
    _TRACES.move_to_end(key)
    return _TRACES[key]


class _Loop:
    """A step cut in pieces, for inputs of some shapes."""

    def __init__(self, step, nests, leaves, alone):
        forms = [tree.map_structure(lambda leaf: 0, nest) for nest in nests]
        sizes = [len(group) for group in leaves]

        def function(*flat):
            x, state, weights = _split(flat, sizes)
            groups = zip(forms, (x, state, weights), strict=True)
            y, state = step(*(tree.pack_sequence_as(form, list(group)) for form, group in groups))
            return [*tree.flatten(y), *tree.flatten(state)]

        xs, state, weights = leaves
        first = [x[0] for x in xs]
        with torch.no_grad():
            y, new = step(
                *(
                    tree.pack_sequence_as(form, group)
                    for form, group in zip(forms, (first, state, weights), strict=True)
                )
            )
        self.y = tree.map_structure(lambda leaf: 0, y)
        self.num_y = len(tree.flatten(y))
        self.sizes = sizes
        outputs = [*tree.flatten(y), *tree.flatten(new)]
        trace = Trace(function, (first, state, weights), outputs)
        self.floats = trace.floats
        wide, self.block = None, AT_ONCE
        if not alone:
            self.block = _block(len(xs[0]), trace.largest())
            tall = [[_tall(x, self.block) for x in group] for group in (first, state, outputs)]
            wide = Trace(function, (tall[0], tall[1], weights), tall[2])
            wide = wide if alike(trace, wide) else None
        self.cut = Cut(trace, wide)

    def infer(self, leaves):
        ys, state, _ = self._forward(self.cut.infer, self.cut.infer_reads, *leaves)
        return [*ys, *state]

    def forward(self, xs, state, weights):
        """Return ``(ys, state, blocks)``: what the gradient reads, a tensor a block of positions.

        A tensor a position would take more memory for its header than for its numbers.
        """
        return self._forward(self.cut.forward, self.cut.forward_reads, xs, state, weights, True)

    def _fixed(self, weights):
        return self.cut.fixed.run(*(weights[at] for _, at in self.cut.fixed_reads))

    def _forward(self, piece, reads, xs, state, weights, keep=False):
        banks = [self._fixed(weights), weights, None, state]
        ys, states, kept, parts, blocks = [], [], [], [], []
        first, last = self.num_y, self.num_y + len(state)
        function, left = piece.run, len(xs[0])
        for banks[2] in zip(*(x.unbind(0) for x in xs), strict=True):
            found = function(*[banks[bank][at] for bank, at in reads])
            ys.append(found[:first])
            if keep:
                states.append(banks[3])
                kept.append(found[last:])
            banks[3] = found[first:last]
            left -= 1
            if len(ys) == self.block or not left:
                parts.append(_stacked(ys))
                blocks.append((_stacked(states), _stacked(kept)))
                ys, states, kept = [], [], []
        ys = [torch.cat(each) for each in zip(*parts, strict=True)]
        # What is returned must not be what is kept: the two would hold each other.
        return ys, [leaf.clone() for leaf in banks[3]], blocks

    def backward(self, xs, weights, blocks, y_slopes, state_slopes):
        """Return ``(dx, dstate, dweights)``, of the last block first."""
        fixed, slopes, total, parts, end = self._fixed(weights), state_slopes, None, [], len(xs[0])
        for states, kept in reversed(blocks):
            here = slice((end - 1) // self.block * self.block, end)
            tall = [[x[here] for x in xs], states, [slope[here] for slope in y_slopes], kept]
            after, slopes, found = self._back(fixed, weights, tall, slopes, end - here.start)
            if self.cut.wide is None:
                num_x = self.sizes[0]
                columns = zip(*(row[:num_x] for row in found), strict=True)
                parts.append([None if x[0] is None else torch.stack(x) for x in columns])
                for row in reversed(found):
                    total = _add(total, row[num_x:])
            else:
                dx, more = self._rest(fixed, weights, tall, after, found)
                parts.append(dx)
                total = _add(total, more)
            end = here.start
        dx = [None if each[0] is None else torch.cat(each[::-1])
              for each in zip(*parts, strict=True)]  # fmt: skip
        return dx, slopes, total

    def _back(self, fixed, weights, tall, slopes, size):
        """The chain of one block: the slopes after each position, those before, and the others."""
        xs, states, y_slopes, kept = (_rows(leaves, size) for leaves in tall)
        banks = [fixed, weights, None, None, None, slopes, None]
        function, reads, num = self.cut.back.run, self.cut.back_reads, len(slopes)
        after, found = [], []
        for t in range(size - 1, -1, -1):
            banks[2], banks[3], banks[4], banks[6] = xs[t], states[t], y_slopes[t], kept[t]
            after.append(banks[5])
            results = function(*[banks[bank][at] for bank, at in reads])
            banks[5] = results[:num]
            found.append(results[num:])
        return after[::-1], banks[5], found[::-1]

    def _rest(self, fixed, weights, tall, after, found):
        """What no later position waits for, of all positions of a block at once."""
        size = len(after)
        xs, *others = ([x.flatten(0, 1) for x in leaves] for leaves in tall)
        states, y_slopes, kept = others
        joined = [
            [torch.cat(each) for each in zip(*lists, strict=True)] for lists in (after, found)
        ]
        rows = [fixed, weights, xs, states, y_slopes, joined[0], kept, joined[1]]
        results = self.cut.rest.run(*(rows[bank][at] for bank, at in self.cut.rest_reads))
        num_x = self.sizes[0]
        dx = [None if x is None else x.unflatten(0, (size, -1)) for x in results[:num_x]]
        return dx, results[num_x:]


class _Gradient(torch.autograd.Function):
    """The loop, differentiated once."""

    @staticmethod
    def forward(ctx, loop, *flat):
        xs, state, weights = _split(flat, loop.sizes)
        ys, state, ctx.blocks = loop.forward(xs, state, weights)
        ctx.loop = loop
        ctx.save_for_backward(*xs, *weights)
        return (*ys, *state)

    @staticmethod
    @once_differentiable
    def backward(ctx, *slopes):
        loop = ctx.loop
        num_x = loop.sizes[0]
        xs, weights = ctx.saved_tensors[:num_x], ctx.saved_tensors[num_x:]
        dx, dstate, dweights = loop.backward(
            xs, weights, ctx.blocks, slopes[: loop.num_y], slopes[loop.num_y :]
        )
        return (None, *dx, *dstate, *dweights)


def _block(steps, largest):
    """Return how many positions are rows of one product: a divisor of all, for the cache."""
    most = max(LEAST, IN_CACHE // largest)
    return next((n for n in range(min(most, steps), LEAST - 1, -1) if steps % n == 0), steps)


def _split(flat, sizes):
    first, second = sizes[0], sizes[0] + sizes[1]
    return flat[:first], flat[first:second], flat[second:]


def _tall(x, steps):
    return x.new_empty((x.shape[0] * steps, *x.shape[1:]))


def _stacked(lists):
    return [torch.stack(each) for each in zip(*lists, strict=True)]


def _rows(leaves, size):
    """Return a tuple of one position of each leaf, for each of a block's positions."""
    return list(zip(*(leaf.unbind(0) for leaf in leaves), strict=True)) or [()] * size


def _add(total, more):
    if total is None:
        return [None if x is None else x.clone() for x in more]
    for sum_, x in zip(total, more, strict=True):
        if x is not None:
            sum_.add_(x)
    return total
