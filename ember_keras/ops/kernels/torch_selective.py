"""Mamba's selective scan on torch and a CPU: a loop over time, in place, that stays in the cache.

The decay of a position, and what is added and read there, is made when the loop comes to it, in
buffers that are used again: no pass over `(T, B, K, D)` numbers is paid for in memory traffic. The
gradient keeps the states at the borders of chunks and walks each chunk twice.
"""

import torch

from ember_keras.ops.kernels.gradient import require_first_order, with_gradient

CHUNK = 32
"""Positions between the states that are kept for the gradient."""


def run(x, delta, a, b, c, h, keep):
    """Return ``(y, h)``, as `parallel.selective`."""
    keep = () if keep is None else (keep,)
    saved = (0, 1, 2, 3, 4, *(6 for _ in keep))
    return with_gradient(_forward, _backward, saved)(x, delta, a, b, c, h, *keep)


class _Positions:
    """The inputs of a scan, a view for each position, and one step of it."""

    def __init__(self, x, delta, a, b, c, keep):
        self.a, self.time = a, x.shape[1]
        self.delta, self.inputs = _rows(delta), _rows(delta * x)
        self.b, self.c = _columns(b), _columns(c)
        self.keep = [z[:, None, None] for z in keep[0].unbind(1)] if keep else None

    def advance(self, at, h, decay):
        """Moves the state `h` over a position; `decay` becomes its decay."""
        torch.mul(self.delta[at], self.a, out=decay).exp_()
        if self.keep is not None:
            decay.mul_(self.keep[at])
        return h.mul_(decay).addcmul_(self.b[at], self.inputs[at])


def _rows(z):
    """The positions of `(B, T, D)` as views `(B, 1, D)`."""
    return z.transpose(0, 1).contiguous().unsqueeze(2).unbind(0)


def _columns(z):
    """The positions of `(B, T, K)` as views `(B, K, 1)`."""
    return z.transpose(0, 1).contiguous().unsqueeze(3).unbind(0)


def _forward(x, delta, a, b, c, h, *keep):
    at = _Positions(x, delta, a, b, c, keep)
    borders = h.new_empty((-(-at.time // CHUNK), *h.shape))
    y = x.new_empty((at.time, x.shape[0], 1, x.shape[2]))
    h, decay = h.clone(), torch.empty_like(h)
    for t in range(at.time):
        if t % CHUNK == 0:
            borders[t // CHUNK].copy_(h)
        torch.bmm(at.c[t].mT, at.advance(t, h, decay), out=y[t])
    return (y.squeeze(2).transpose(0, 1), h), (borders,)


def _backward(inputs, residuals, cotangent):
    x, delta, a, b, c, *keep = inputs
    (borders,), (g, dh) = residuals, cotangent
    require_first_order("torch_selective_scan")
    at, g = _Positions(x, delta, a, b, c, keep), _rows(g)
    dh, scaled = dh.clone(), torch.empty_like(dh)
    da = torch.zeros_like(dh)
    states, decays = (dh.new_empty((CHUNK, *dh.shape)) for _ in range(2))
    db, dc = (x.new_empty((at.time, x.shape[0], a.shape[0], 1)) for _ in range(2))
    du, ddelta = (x.new_empty((at.time, x.shape[0], 1, x.shape[2])) for _ in range(2))
    for chunk in range(borders.shape[0] - 1, -1, -1):
        start = chunk * CHUNK
        h = borders[chunk].clone()
        for t in range(start, min(start + CHUNK, at.time)):
            states[t - start].copy_(at.advance(t, h, decays[t - start]))
        for t in range(min(start + CHUNK, at.time) - 1, start - 1, -1):
            before = states[t - start - 1] if t > start else borders[chunk]
            torch.bmm(states[t - start], g[t].mT, out=dc[t])
            dh.addcmul_(at.c[t], g[t])
            torch.bmm(dh, at.inputs[t].mT, out=db[t])
            torch.bmm(at.b[t].mT, dh, out=du[t])
            dh.mul_(decays[t - start])
            torch.mul(dh, before, out=scaled)  # The gradient of the log of the decay.
            da.addcmul_(scaled, at.delta[t])
            torch.sum(scaled.mul_(a), 1, keepdim=True, out=ddelta[t])
    du, ddelta = (z.squeeze(2).transpose(0, 1) for z in (du, ddelta))
    db, dc = (z.squeeze(3).transpose(0, 1) for z in (db, dc))
    return (du * delta, ddelta + du * x, da.sum(0), db, dc, dh, *(None for _ in keep))
