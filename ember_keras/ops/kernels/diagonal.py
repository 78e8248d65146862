"""Diagonal recurrences by a loop over time: compiled on jax, one fused operation a step on torch.

A loop whose body is one fused multiply-add reads and writes each number once; the blocked form does
so twice, and pays where each step of a loop costs more than its arithmetic.
"""

from ember_keras.ops.kernels import in_place
from ember_keras.ops.kernels.gradient import require_first_order, with_gradient
from ember_keras.ops.kernels.table import Kernel, register

CHUNK = 32
"""Positions between the states that Mamba's scan keeps for its gradient on jax."""


def _never(request):
    return None


def _run_jax(a, b, h, reverse=False):
    import jax
    from jax import numpy as jnp

    def late(x):
        return jnp.moveaxis(x, 1, 0)

    constant = a[0].shape[1] == 1
    fixed = tuple(x[:, 0] for x in a)

    def body(h, each):
        a, b = (fixed, each) if constant else each
        if len(b) == 1:
            h = (a[0] * h[0] + b[0],)
        else:
            real = a[0] * h[0] - a[1] * h[1] + b[0]
            h = (real, a[0] * h[1] + a[1] * h[0] + b[1])
        return h, h

    b = tuple(map(late, b))
    xs = b if constant else (tuple(map(late, a)), b)
    _, states = jax.lax.scan(body, tuple(h), xs, reverse=reverse)
    return tuple(jnp.moveaxis(x, 0, 1) for x in states)


def _selective_jax(x, delta, a, b, c, h, keep):
    import jax
    from jax import numpy as jnp

    time = x.shape[1]
    size = min(CHUNK, time)
    count = -(-time // size)

    def split(z, filling=0.0):
        widths = ((0, 0), (0, count * size - time), *((0, 0) for _ in z.shape[2:]))
        z = jnp.moveaxis(jnp.pad(z, widths, constant_values=filling), 1, 0)
        return z.reshape(count, size, *z.shape[1:])

    def join(z):
        return jnp.moveaxis(z.reshape(count * size, *z.shape[2:]), 0, 1)[:, :time]

    def decay(delta, a, keep):
        decays = jnp.exp(delta[:, None, :] * a)
        return decays * keep[0][:, None, None] if keep else decays

    def after(h, a, x, delta, b, keep):
        return decay(delta, a, keep) * h + (delta * x)[:, None, :] * b[:, :, None]

    def forward(x, delta, a, b, c, h, *keep):
        def step(h, each):
            x, delta, b, c, *keep = each
            h = after(h, a, x, delta, b, keep)
            return h, jnp.sum(h * c[:, :, None], axis=1)

        def chunk(h, each):
            last, y = jax.lax.scan(step, h, each)
            return last, (y, h)

        xs = (*map(split, (x, delta, b, c)), *(split(z, 1.0) for z in keep))
        h, (y, borders) = jax.lax.scan(chunk, h, xs)
        return (join(y), h), (borders,)

    def backward(inputs, residuals, cotangent):
        x, delta, a, b, c, *keep = inputs

        def again(h, each):
            x, delta, b, *keep = each
            h = after(h, a, x, delta, b, keep)
            return h, h

        def step(carry, each):
            dh, da = carry
            delta, b, c, g, before, *keep = each
            d = dh + c[:, :, None] * g[:, None, :]
            dh = d * decay(delta, a, keep)
            d_log = dh * before
            found = d, jnp.sum(d_log * a, axis=1), jnp.sum(d * b[:, :, None], axis=1)
            return (dh, da + d_log * delta[:, None, :]), found

        def chunk(carry, each):
            x, delta, b, c, g, h, *keep = each
            _, states = jax.lax.scan(again, h, (x, delta, b, *keep))
            before = jnp.concatenate([h[None], states[:-1]])
            xs = (delta, b, c, g, before, *keep)
            carry, (d, ddelta, du) = jax.lax.scan(step, carry, xs, reverse=True)
            db = jnp.einsum("tbkd,tbd->tbk", d, delta * x)
            dc = jnp.einsum("tbkd,tbd->tbk", states, g)
            return carry, (du * delta, ddelta + du * x, db, dc)

        g, dh = cotangent
        xs = (*map(split, (x, delta, b, c, g)), residuals[0], *(split(z, 1.0) for z in keep))
        start = dh, jnp.zeros_like(dh)
        (dh, da), found = jax.lax.scan(chunk, start, xs, reverse=True)
        dx, ddelta, db, dc = map(join, found)
        return (dx, ddelta, jnp.sum(da, axis=0), db, dc, dh, *(None for _ in keep))

    keep = () if keep is None else (keep,)
    saved = (0, 1, 2, 3, 4, *(6 for _ in keep))
    return with_gradient(forward, backward, saved)(x, delta, a, b, c, h, *keep)


def _run_torch(a, b, h, reverse=False):
    import torch

    require_first_order("torch_loop")
    time = b[0].shape[1]
    last = [a[0].shape[1] > 1, a[-1].shape[1] > 1]
    states = tuple(torch.empty_like(x) for x in b)
    for t in range(time - 1, -1, -1) if reverse else range(time):
        real = a[0][:, t if last[0] else 0]
        if len(b) == 1:
            h = (torch.addcmul(b[0][:, t], real, h[0], out=states[0][:, t]),)
            continue
        imaginary = a[1][:, t if last[1] else 0]
        one = torch.addcmul(b[0][:, t], real, h[0])
        two = torch.addcmul(b[1][:, t], real, h[1])
        torch.addcmul(one, imaginary, h[1], value=-1, out=states[0][:, t])
        torch.addcmul(two, imaginary, h[0], out=states[1][:, t])
        h = states[0][:, t], states[1][:, t]
    return states


def _selective_torch(*tensors):
    from ember_keras.ops.kernels import torch_selective

    return torch_selective.run(*tensors)


register(
    Kernel(
        "jax_scan",
        "linear_recurrence",
        ("jax",),
        _never,
        _run_jax,
        "jax.lax.scan over time.",
    )
)
register(
    Kernel(
        "torch_loop",
        "linear_recurrence",
        ("torch",),
        in_place.transformation,
        _run_torch,
        "a loop over time of fused multiply-adds, in place.",
    )
)
register(
    Kernel(
        "jax_selective_scan",
        "selective_scan",
        ("jax",),
        _never,
        _selective_jax,
        "jax.lax.scan over time, which makes decays and states anew for the gradient.",
    )
)
register(
    Kernel(
        "torch_selective_scan",
        "selective_scan",
        ("torch",),
        in_place.refusal,
        _selective_torch,
        "a loop over time on a CPU, in place, which makes decays and states anew for the gradient.",
    )
)
