"""Gated linear attention with one decay a head on torch and a CPU: chunk after chunk, in place.

All heads and rows of a chunk are a few tensors of a megabyte, in buffers that are used again: they
stay in the cache, and what would be ten passes over the whole sequence in memory are passes there.
The state goes from chunk to chunk as it would through time. The gradient keeps the states between
chunks and walks backwards.

Letters are those of the engine: ``G`` groups of ``R`` heads, ``N`` chunks of ``C`` positions.
"""

import torch

from ember_keras.ops.kernels.gradient import require_first_order, with_gradient

PAIRS = 2**19
"""Numbers in the decays between positions that are made at a time: two megabytes."""


def run(q, k, v, log_decay, initial, sight=(), *, exclusive=False, beta=None, d=None):
    """Return ``(o, state)``, as the engine's chunked form.

    Args:
        q: ``(B, N, G, C, K)``.
        k: ``(B, N, G, C, K)``.
        v: ``(B, N, G, C, R, V)``.
        log_decay: ``(B, N, G, R, C)``, at most 0.
        initial: ``(B, G, K, R, V)``.
        sight: of packed sequences, who sees whom: ``(B, N, 1, C, C)``, ``(B, N, 1, C, 1)`` twice,
            ``(B, N, 1, 1, 1)``, each 1 or 0; empty where all see all before them.
        exclusive: bool. A position reads the state before itself.
        beta: ``(B, N, G, R, C)`` or None, what a position writes of its value.
        d: ``(G, R)`` or None, what it reads of its value.
    """
    given, at = (beta, d), [i for i, x in enumerate((beta, d)) if x is not None]
    factors = [given[i] for i in at]

    def walk(q, k, v, log_decay, *others):
        found = dict(zip(at, others, strict=False))
        sight = others[len(at) :]
        return _Walk(q, k, v, log_decay, sight, exclusive, found.get(0), found.get(1))

    def forward(q, k, v, log_decay, initial, *others):
        return _forward(walk(q, k, v, log_decay, *others), initial)

    def backward(inputs, residuals, cotangent):
        require_first_order("torch_chunks")
        *slopes, dbeta, dd = _backward(walk(*inputs), *residuals, *cotangent)
        return (*slopes, *((dbeta, dd)[i] for i in at), *(None for _ in sight))

    saved = (0, 1, 2, 3, *range(5, 5 + len(at) + len(sight)))
    function = with_gradient(forward, backward, saved)
    return function(q, k, v, log_decay, initial, *factors, *sight)


class _Walk:
    """The tensors of a sequence, its decays, and views of a chunk."""

    def __init__(self, q, k, v, log_decay, sight, exclusive, beta, d):
        self.q, self.k, self.v, self.exclusive = q, k, v, exclusive
        self.rows, self.count, self.groups, self.size, self.heads, self.width = v.shape
        self.together = self.rows * self.groups
        sums = torch.cumsum(log_decay, -1)
        logs = (_before(sums) if exclusive else sums, _after(log_decay), sums[..., -1:])
        self.read, self.write, self.keep = (torch.exp(x).mT[..., None] for x in logs)
        self.seen = None
        if sight:
            self.seen, *flags = sight
            self.read, self.write, self.keep = (
                x * flag[..., None]
                for x, flag in zip((self.read, self.write, self.keep), flags, strict=True)
            )
        # As factors of values ``(B, G, C, R, V)``, and of pairs ``(B G, R, C, C)`` by column.
        self.beta = None if beta is None else beta.mT[..., None]
        self.beta_pairs = None if beta is None else beta.transpose(0, 1).flatten(1, 2)
        self.d = None if d is None else d[:, None, :, None]
        self.put = self.write if beta is None else self.write * self.beta
        self.decays = torch.exp(log_decay).transpose(0, 1).reshape(self.count, -1, self.size)
        own = self.decays.shape[1]
        self.ahead = min(self.count, max(1, PAIRS // (own * self.size**2)))
        self.between, self.start = _Between(self.ahead * own, self.size, v), None

    def vectors(self, x, n):
        """Queries or keys of a chunk, `(B G, C, K)`."""
        return x[:, n].reshape(self.together, self.size, -1)

    def pairs(self, n):
        """What is left of each key's position at each query's: `(B G, R, C, C)`."""
        start = min(n - n % self.ahead, self.count - self.ahead)
        if start != self.start:
            self.start = start
            self.between.of(self.decays[start : start + self.ahead].flatten(0, 1))
        pairs = self.between.products.unflatten(0, (self.ahead, -1))[n - start]
        pairs = (pairs[:, :-1] if self.exclusive else pairs[:, 1:]).unflatten(0, (-1, self.heads))
        if self.seen is None:
            return pairs
        seen = self.seen[:, n, :, None].expand(-1, self.groups, *(-1,) * 3)
        return pairs * seen.flatten(0, 1)

    def kept(self, n):
        """What a chunk leaves of the state before it, `(B G, 1, R V)`."""
        kept = self.keep[:, n].expand(-1, -1, -1, -1, self.width)
        return kept.reshape(self.together, 1, -1)

    def shared(self):
        """A buffer `(B, G, C, R, V)`, as values have it: all heads of a group in one product."""
        return self.v.new_empty(self.rows, self.groups, self.size, self.heads, self.width)

    def own(self):
        """A buffer `(B, G, R, C, V)`: each head has a product of its own."""
        return self.v.new_empty(self.rows, self.groups, self.heads, self.size, self.width)

    def scores(self):
        """A buffer `(B G, R, C, C)`."""
        return self.v.new_empty(self.together, self.heads, self.size, self.size)

    def result(self):
        """A tensor for a result like `v`, whose chunks of positions lie side by side."""
        shape = (self.rows, self.count, self.size, self.groups, self.heads, self.width)
        return self.v.new_empty(shape).transpose(2, 3)

    def matrices(self, state):
        """A state `(B, G, K, R, V)` as matrices `(B G, K, R V)`, a copy."""
        copy = state.clone(memory_format=torch.contiguous_format)
        return copy.view(self.together, -1, self.heads * self.width)

    def state(self, matrices):
        return matrices.view(self.rows, self.groups, -1, self.heads, self.width)


def _forward(walk, initial):
    state, own, shared = walk.matrices(initial), walk.own(), walk.shared()
    inside, values = (x.view(-1, walk.size, walk.width) for x in (torch.empty_like(own), own))
    across = shared.view(walk.together, walk.size, -1)
    borders = state.new_empty(walk.count, *state.shape)
    scores, o = walk.scores(), walk.result()
    for n in range(walk.count):
        q, k = walk.vectors(walk.q, n), walk.vectors(walk.k, n)
        borders[n].copy_(state)
        torch.mul(walk.pairs(n), torch.bmm(q, k.mT)[:, None], out=scores)
        if walk.beta is None:
            own.copy_(walk.v[:, n].transpose(2, 3))
        else:
            torch.mul(*(x[:, n].transpose(2, 3) for x in (walk.v, walk.beta)), out=own)
        torch.bmm(scores.view(-1, walk.size, walk.size), values, out=inside)
        torch.bmm(q, state, out=across)
        shared.mul_(walk.read[:, n])
        torch.add(shared, inside.view(own.shape).transpose(2, 3), out=o[:, n])
        if walk.d is not None:
            o[:, n].addcmul_(walk.v[:, n], walk.d)
        torch.mul(walk.v[:, n], walk.put[:, n], out=shared)
        state.mul_(walk.kept(n))
        state.baddbmm_(k.mT, across)
    return (o, walk.state(state)), (borders,)


def _backward(walk, borders, slope, last_slope):
    size, heads = walk.size, walk.heads
    state, scratch = walk.matrices(last_slope), borders.new_empty(borders.shape[1:])
    slopes, values, inside = walk.own(), walk.own(), walk.own()
    read_slope, written, read = walk.shared(), walk.shared(), walk.shared()
    slopes_, values_, inside_ = (x.view(-1, size, walk.width) for x in (slopes, values, inside))
    read_slope_, written_, read_ = (
        x.view(walk.together, size, -1) for x in (read_slope, written, read)
    )
    scores, pair_slope = walk.scores(), walk.scores()
    dq, dk = (x.new_empty(walk.together, walk.count, size, x.shape[-1]) for x in (walk.q, walk.k))
    dv = walk.result()
    reads, keys, writes, dbeta = (
        slope.new_empty(walk.rows, walk.count, walk.groups, heads, size) for _ in range(4)
    )
    dd = slope.new_zeros(walk.groups, heads)
    kept = slope.new_empty(walk.rows, walk.count, walk.groups, heads)
    # Pairs without a decay between them would enter two sums of the gradient of decays and cancel,
    # up to a rounding that is large beside what strong decays leave.
    decayed = slope.new_ones(size, size).tril(-2 if walk.exclusive else -1)
    for n in range(walk.count - 1, -1, -1):
        q, k, v, g = walk.vectors(walk.q, n), walk.vectors(walk.k, n), walk.v[:, n], slope[:, n]
        products = torch.bmm(q, k.mT)[:, None]
        slopes.copy_(g.transpose(2, 3))
        values.copy_(v.transpose(2, 3))
        torch.bmm(slopes_, values_.mT, out=pair_slope.view(-1, size, size))
        if walk.d is not None:
            own_slope = pair_slope.diagonal(dim1=-2, dim2=-1).sum(-1)
            dd += own_slope.view(walk.rows, walk.groups, heads).sum(0)
        pairs = walk.pairs(n)
        pair_slope.mul_(pairs)
        if walk.beta is None:
            product_slope = pair_slope.sum(1)
        else:
            beta = walk.beta_pairs[n]
            product_slope = torch.mul(pair_slope, beta[:, :, None], out=scores).sum(1)
        torch.mul(pairs, products, out=scores)
        torch.bmm(scores.view(-1, size, size).mT, slopes_, out=inside_)
        torch.bmm(k, state, out=written_)
        written.mul_(walk.write[:, n])
        torch.add(written, inside.transpose(2, 3), out=dv[:, n])
        if walk.beta is not None:
            dv[:, n].mul_(walk.beta[:, n])
        if walk.d is not None:
            dv[:, n].addcmul_(g, walk.d)
        writes[:, n] = written.mul_(v).sum(-1).mT
        torch.mul(g, walk.read[:, n], out=read_slope)
        torch.bmm(q, borders[n], out=read_)
        reads[:, n] = read.mul_(read_slope).sum(-1).mT
        torch.mul(v, walk.put[:, n], out=written)
        torch.bmm(product_slope, k, out=dq[:, n]).baddbmm_(read_slope_, borders[n].mT)
        torch.bmm(product_slope.mT, q, out=dk[:, n]).baddbmm_(written_, state.mT)
        # A log decay scales every pair it lies between, every read after and write before it,
        # and what is kept.
        own = (walk.rows, walk.groups, heads, size)
        pair_slope.mul_(products)
        if walk.beta is None:
            pair_slope.mul_(decayed)
            reads[:, n] += pair_slope.sum(-1).view(own)
            keys[:, n] = pair_slope.sum(-2).view(own)
        else:
            dbeta[:, n] = pair_slope.sum(-2).view(own)
            pair_slope.mul_(decayed)
            reads[:, n] += torch.matmul(pair_slope, beta[..., None]).view(own)
            keys[:, n] = (pair_slope.sum(-2) * beta).view(own)
        torch.mul(borders[n], state, out=scratch)
        kept[:, n] = walk.state(scratch).sum((2, 4)) * walk.keep[:, n, :, 0, :, 0]
        state.mul_(walk.kept(n))
        state.baddbmm_(q.mT, read_slope_)
    if walk.beta is not None:
        dbeta += writes
        writes *= walk.beta[..., 0].mT
    reads = _after(reads) if walk.exclusive else _after(reads) + reads
    d_log = reads - (_after(keys) + keys) + _before(torch.cumsum(writes, -1)) + kept[..., None]
    dq, dk = (x.view(walk.rows, walk.groups, *x.shape[1:]).transpose(1, 2) for x in (dq, dk))
    return dq, dk, dv, d_log, walk.state(state), dbeta, dd


def _before(sums):
    """Sums up to each position as sums up to the one before it."""
    return torch.nn.functional.pad(sums[..., :-1], (1, 0))


def _after(x):
    """The sums of what comes after each position."""
    return _before(torch.cumsum(x.flip(-1), -1)).flip(-1)


class _Between:
    """The product of the decays between each two positions of a chunk, for many chunks at once.

    Blocks of positions are joined two by two: between a position of the first and one of the second
    stands what is left from the one to the end of its block, and from there to the other.
    """

    def __init__(self, chunks, size, like):
        # Row i + 1 belongs to position i, so that without the first row, or without the last, a
        # position's own decay is in the product, or not.
        self.products = like.new_zeros(chunks, size + 1, size)
        self.products[:, 1:].diagonal(dim1=1, dim2=2).fill_(1)
        # What is left from the start of a block to a position, and from there to its end.
        self.begun, self.ended = (like.new_empty(chunks, size) for _ in range(2))
        self.joints, half = [], 1
        while half < size:
            count = size // (2 * half)
            first, second = self.begun.unflatten(1, (count, 2, half)).unbind(2)
            left = self.ended.unflatten(1, (count, 2, half))[:, :, 0]
            blocks = self.products[:, 1:].unflatten(1, (count, 2 * half))
            blocks = blocks.unflatten(3, (count, 2 * half)).diagonal(dim1=1, dim2=3)
            factors = second.mT[:, :, None], left.mT[:, None], blocks[:, half:, :half]
            self.joints.append((*factors, left, second[:, :, -1:], second, first[:, :, -1:]))
            half *= 2

    def of(self, decays):
        """Make `products`, ``(M, C + 1, C)``, those of decays ``(M, C)``."""
        self.begun.copy_(decays)
        self.ended.fill_(1)
        for to, until, blocks, left, rest, second, before in self.joints:
            torch.mul(to, until, out=blocks)
            left.mul_(rest)
            second.mul_(before)
