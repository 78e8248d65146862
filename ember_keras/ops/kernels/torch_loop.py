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
        wide = None
        if not alone:
            self.block = _block(len(xs[0]), trace.largest())
            tall = [[_tall(x, self.block) for x in group] for group in (first, state, outputs)]
            wide = Trace(function, (tall[0], tall[1], weights), tall[2])
            wide = wide if alike(trace, wide) else None
        self.cut = Cut(trace, wide)

    def infer(self, leaves):
        xs, state, weights = leaves
        ys, state, _, _ = self._forward(self.cut.infer, self.cut.infer_reads, xs, state, weights)
        return [*ys, *state]

    def forward(self, xs, state, weights):
        return self._forward(self.cut.forward, self.cut.forward_reads, xs, state, weights)

    def _fixed(self, weights):
        return self.cut.fixed.run(*(weights[at] for _, at in self.cut.fixed_reads))

    def _forward(self, piece, reads, xs, state, weights):
        banks = [self._fixed(weights), weights, None, state]
        ys, states, kept = [], [], []
        first, last = self.num_y, self.num_y + len(state)
        function = piece.run
        for banks[2] in zip(*(x.unbind(0) for x in xs), strict=True):
            states.append(banks[3])
            found = function(*[banks[bank][at] for bank, at in reads])
            ys.append(found[:first])
            banks[3] = found[first:last]
            kept.append(found[last:])
        ys = [torch.stack(each) for each in zip(*ys, strict=True)]
        # What is returned must not be what is kept: the two would hold each other.
        return ys, [leaf.clone() for leaf in banks[3]], states, kept

    def backward(self, xs, weights, states, kept, y_slopes, state_slopes):
        cut = self.cut
        fixed = self._fixed(weights)
        banks = [fixed, weights, None, None, None, state_slopes, None]
        steps = list(zip(*(x.unbind(0) for x in xs), strict=True))
        slopes = list(zip(*(slope.unbind(0) for slope in y_slopes), strict=True))
        function, reads, size = cut.back.run, cut.back_reads, len(state_slopes)
        after, found, total = [], [], None
        num_x = self.sizes[0]
        for t in range(len(steps) - 1, -1, -1):
            banks[2], banks[3], banks[4], banks[6] = steps[t], states[t], slopes[t], kept[t]
            after.append(banks[5])
            results = function(*[banks[bank][at] for bank, at in reads])
            banks[5], others = results[:size], results[size:]
            if cut.wide is None:
                found.append(others[:num_x])
                total = _add(total, others[num_x:])
            else:
                found.append(others)
        if cut.wide is None:
            dx = [None if each[0] is None else torch.stack(each[::-1])
                  for each in zip(*found, strict=True)]  # fmt: skip
            return dx, banks[5], total
        after, found, parts = after[::-1], found[::-1], []
        for start in range(0, len(steps), self.block):
            here = slice(start, start + self.block)
            rows = [
                fixed,
                weights,
                [x[here].flatten(0, 1) for x in xs],
                _joined(states[here]),
                [slope[here].flatten(0, 1) for slope in y_slopes],
                _joined(after[here]),
                _joined(kept[here]),
                _joined(found[here]),
            ]
            results = cut.rest.run(*(rows[bank][at] for bank, at in cut.rest_reads))
            parts.append(results[:num_x])
            total = _add(total, results[num_x:])
        dx = [None if each[0] is None else torch.cat(each).unflatten(0, (len(steps), -1))
              for each in zip(*parts, strict=True)]  # fmt: skip
        return dx, banks[5], total


class _Gradient(torch.autograd.Function):
    """The loop, differentiated once."""

    @staticmethod
    def forward(ctx, loop, *flat):
        xs, state, weights = _split(flat, loop.sizes)
        ys, state, states, kept = loop.forward(xs, state, weights)
        ctx.loop, ctx.states, ctx.kept = loop, states, kept
        ctx.save_for_backward(*xs, *weights)
        return (*ys, *state)

    @staticmethod
    @once_differentiable
    def backward(ctx, *slopes):
        loop = ctx.loop
        num_x = loop.sizes[0]
        xs, weights = ctx.saved_tensors[:num_x], ctx.saved_tensors[num_x:]
        dx, dstate, dweights = loop.backward(
            xs, weights, ctx.states, ctx.kept, slopes[: loop.num_y], slopes[loop.num_y :]
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


def _joined(lists):
    return [torch.cat(each) for each in zip(*lists, strict=True)]


def _add(total, more):
    if total is None:
        return [None if x is None else x.clone() for x in more]
    for sum_, x in zip(total, more, strict=True):
        if x is not None:
            sum_.add_(x)
    return total
