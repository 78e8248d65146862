"""Ops that sequence models use, each beside a plain numpy twin: (name, op, twin, shapes).

The twins run in float64 on complex or real arrays, so a central difference of them is an
independent gradient. Inputs are drawn from a seeded normal distribution in the order of `shapes`;
a shape written as a callable receives the generator and returns the array.
"""

import numpy as np
from keras import ops
from op_twins import (
    np_affine_scan,
    np_attention,
    np_complex_chain,
    np_conv,
    np_depthwise,
    np_fft_convolution,
    np_s4d_kernel,
    np_scan,
    np_sigmoid,
    np_softmax,
    pair,
    repeated,
)


def positive(*shape):
    """Draw from [0.5, 1.5)."""
    return lambda rng: rng.uniform(0.5, 1.5, shape)


def distinct(*shape):
    """Draw values that are at least 0.5 apart, so that sorting is smooth around them."""

    def draw(rng):
        return (rng.permutation(int(np.prod(shape))) * 0.5 + rng.uniform(0, 0.1)).reshape(shape)

    return draw


def affine(left, right):
    return right[0] * left[0], right[0] * left[1] + right[1]


def affine_scan(axis, reverse=False):
    def run(a, b):
        return ops.associative_scan(affine, (a, b), axis=axis, reverse=reverse)[1]

    return run


CAUSAL = np.tril(np.ones((5, 5), bool))
PADDED = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)[:, None, None, :]
IDS = np.array([[0, 2, 1], [3, 3, 0]])
ROWS = np.array([2, 0, 2, 1])
KEEP = np.array([True, False, True, True, False])


def s4d_kernel(dt, a, c):
    """A diagonal state-space kernel through complex exponentials: widths 3, length 7."""
    steps = ops.cast(ops.arange(7), "complex64")
    rate = ops.cast(-ops.exp(a), "complex64") + ops.cast(
        ops.convert_to_tensor(1j * np.arange(3)), "complex64"
    )
    power = ops.exp(
        ops.expand_dims(ops.cast(dt, "complex64") * rate, -1) * ops.expand_dims(steps, 0)
    )
    return ops.real(ops.sum(ops.expand_dims(ops.cast(c, "complex64"), -1) * power, axis=0))


def complex_chain(x, y):
    z = ops.view_as_complex(ops.stack([x, y], axis=-1))
    z = ops.exp(z * 0.3) * ops.conj(z) + ops.square(z)
    return ops.real(z), ops.imag(z), ops.abs(z)


def fft_convolution(u, k):
    n = u.shape[-1] + k.shape[-1] - 1
    ur, ui = ops.rfft(u, fft_length=n)
    kr, ki = ops.rfft(k, fft_length=n)
    return ops.irfft((ur * kr - ui * ki, ur * ki + ui * kr), fft_length=n)[..., : u.shape[-1]]


CASES = [
    ("matmul", ops.matmul, np.matmul, [(2, 3, 4), (4, 5)]),
    (
        "einsum_attention",
        lambda q, k: ops.einsum("bthk,bshk->bhts", q, k),
        lambda q, k: np.einsum("bthk,bshk->bhts", q, k),
        [(1, 3, 2, 2), (1, 4, 2, 2)],
    ),
    (
        "einsum_ellipsis",
        lambda a, b: ops.einsum("...d,de->...e", a, b),
        lambda a, b: np.einsum("...d,de->...e", a, b),
        [(2, 2, 3), (3, 2)],
    ),
    (
        "einsum_three",
        lambda a, b, c: ops.einsum("bt,td,bd->d", a, b, c),
        lambda a, b, c: np.einsum("bt,td,bd->d", a, b, c),
        [(2, 3), (3, 4), (2, 4)],
    ),
    (
        "einsum_outer",
        lambda a, b: ops.einsum("bhk,bhv->bhkv", a, b),
        lambda a, b: np.einsum("bhk,bhv->bhkv", a, b),
        [(2, 2, 3), (2, 2, 2)],
    ),
    ("cumsum", lambda x: ops.cumsum(x, axis=1), lambda x: np.cumsum(x, 1), [(2, 5, 2)]),
    ("cumprod", lambda x: ops.cumprod(x, axis=1), lambda x: np.cumprod(x, 1), [positive(2, 5)]),
    (
        "cumprod_zero",
        lambda x: ops.cumprod(x, axis=-1),
        lambda x: np.cumprod(x, -1),
        [lambda rng: np.array([[1.5, 0.0, 2.0, 3.0], [0.0, 1.0, 0.0, 2.0]])],
    ),
    (
        "logsumexp",
        lambda x: ops.logsumexp(x, axis=-1),
        lambda x: np.log(np.exp(x).sum(-1)),
        [(3, 4)],
    ),
    ("softmax", lambda x: ops.softmax(x, axis=-1), np_softmax, [(3, 4)]),
    ("log_softmax", ops.log_softmax, lambda x: np.log(np_softmax(x)), [(3, 4)]),
    ("logaddexp", ops.logaddexp, np.logaddexp, [(3, 4), (3, 4)]),
    ("log_sigmoid", ops.log_sigmoid, lambda x: np.log(np_sigmoid(x)), [(3, 4)]),
    ("softplus", ops.softplus, lambda x: np.log1p(np.exp(x)), [(3, 4)]),
    ("silu", ops.silu, lambda x: x * np_sigmoid(x), [(3, 4)]),
    (
        "gelu_tanh",
        lambda x: ops.gelu(x, approximate=True),
        lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        [(3, 4)],
    ),
    ("elu", ops.elu, lambda x: np.where(x > 0, x, np.expm1(x)), [(3, 4)]),
    ("expm1", ops.expm1, np.expm1, [(3, 4)]),
    ("log1p", ops.log1p, np.log1p, [positive(3, 4)]),
    ("rsqrt", ops.rsqrt, lambda x: x**-0.5, [positive(3, 4)]),
    ("power", ops.power, np.power, [positive(3, 4), (3, 4)]),
    ("divide", ops.divide, np.divide, [(3, 4), positive(4)]),
    ("sin_cos", lambda x: ops.sin(x) * ops.cos(x), lambda x: np.sin(x) * np.cos(x), [(3, 4)]),
    ("arctan2", ops.arctan2, np.arctan2, [(3, 4), (3, 4)]),
    ("std", lambda x: ops.std(x, axis=-1), lambda x: x.std(-1), [(3, 4)]),
    ("var", lambda x: ops.var(x, axis=(0, 2)), lambda x: x.var((0, 2)), [(3, 2, 2)]),
    ("prod", lambda x: ops.prod(x, axis=-1), lambda x: x.prod(-1), [(3, 4)]),
    ("max", lambda x: ops.max(x, axis=-1), lambda x: x.max(-1), [distinct(3, 4)]),
    ("amin", lambda x: ops.min(x, axis=0), lambda x: x.min(0), [distinct(3, 4)]),
    ("norm", lambda x: ops.norm(x, axis=-1), lambda x: np.linalg.norm(x, axis=-1), [(3, 4)]),
    (
        "take",
        lambda x: ops.take(x, ROWS, axis=0),
        lambda x: np.take(x, ROWS, axis=0),
        [(3, 4)],
    ),
    (
        "take_negative",
        lambda x: ops.take(x, np.array([-1, 0]), axis=1),
        lambda x: np.take(x, [-1, 0], axis=1),
        [(3, 4)],
    ),
    (
        "take_along_axis",
        lambda x: ops.take_along_axis(x, IDS, axis=1),
        lambda x: np.take_along_axis(x, IDS, axis=1),
        [(2, 4)],
    ),
    (
        "where",
        lambda x, y: ops.where(KEEP, x, y),
        lambda x, y: np.where(KEEP, x, y),
        [(2, 5), (5,)],
    ),
    (
        "where_hides_log_of_zero",
        lambda x: ops.where(x > 0, ops.log(ops.where(x > 0, x, 1.0)), 0.0),
        lambda x: np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), 0.0),
        [lambda rng: np.array([1.0, -2.0, 3.0, -0.5])],
    ),
    (
        "sort",
        lambda x: ops.sort(x, axis=-1),
        lambda x: np.sort(x, axis=-1),
        [distinct(3, 4)],
    ),
    (
        "argsort_gather",
        lambda x: ops.take_along_axis(x, ops.argsort(x, axis=-1), axis=-1),
        lambda x: np.sort(x, axis=-1),
        [distinct(3, 5)],
    ),
    (
        "top_k",
        lambda x: ops.top_k(x, 2)[0],
        lambda x: -np.sort(-x, axis=-1)[..., :2],
        [distinct(3, 5)],
    ),
    (
        "scatter_update",
        lambda x, u: ops.scatter_update(x, np.array([[0, 1], [2, 0]]), u),
        lambda x, u: (
            np.where([[0, 1], [0, 0], [1, 0]], np.array([[0, u[0]], [0, 0], [u[1], 0]]), x)
            if x.shape == (3, 2)
            else None
        ),
        [(3, 2), (2,)],
    ),
    (
        "segment_sum",
        lambda x: ops.segment_sum(x, np.array([0, 0, 2, 1]), num_segments=3),
        lambda x: np.stack([x[0] + x[1], x[3], x[2]]),
        [(4, 2)],
    ),
    (
        "slice",
        lambda x: ops.slice(x, [1, 0], [2, 3]),
        lambda x: x[1:3, :3],
        [(4, 4)],
    ),
    (
        "slice_update",
        lambda x, u: ops.slice_update(x, [1, 2], u),
        lambda x, u: np.concatenate(
            [x[:1], np.concatenate([x[1:3, :2], u, x[1:3, 4:]], 1), x[3:]], 0
        ),
        [(4, 5), (2, 2)],
    ),
    (
        "pad",
        lambda x: ops.pad(x, [[1, 0], [0, 2]]),
        lambda x: np.pad(x, [[1, 0], [0, 2]]),
        [(2, 3)],
    ),
    ("roll", lambda x: ops.roll(x, 2, axis=1), lambda x: np.roll(x, 2, 1), [(2, 5)]),
    ("flip", lambda x: ops.flip(x, axis=1), lambda x: np.flip(x, 1), [(2, 5)]),
    ("repeat", lambda x: ops.repeat(x, 3, axis=1), lambda x: np.repeat(x, 3, 1), [(2, 3)]),
    ("tile", lambda x: ops.tile(x, (2, 2)), lambda x: np.tile(x, (2, 2)), [(2, 3)]),
    ("diff", lambda x: ops.diff(x, axis=1), lambda x: np.diff(x, axis=1), [(2, 5)]),
    ("tril", ops.tril, np.tril, [(4, 4)]),
    (
        "index_strided",
        lambda x: x[:, 1::2],
        lambda x: x[:, 1::2],
        [(2, 6)],
    ),
    (
        "split_concatenate",
        lambda x: ops.concatenate(ops.split(x, 3, axis=-1)[::-1], axis=0),
        lambda x: np.concatenate(np.split(x, 3, axis=-1)[::-1], axis=0),
        [(2, 6)],
    ),
    ("clip", lambda x: ops.clip(x, -0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5), [(3, 4)]),
    (
        "scan",
        lambda h, x: ops.scan(lambda c, i: (ops.tanh(c + i), c * i), h, x)[1],
        lambda h, x: np_scan(h, x),
        [(3,), (5, 3)],
    ),
    (
        "fori_loop",
        lambda x: ops.fori_loop(0, 4, lambda i, c: ops.sin(c) * 1.5, x),
        lambda x: repeated(lambda c: np.sin(c) * 1.5, x, 4),
        [(3,)],
    ),
    (
        "while_loop",
        lambda x: ops.while_loop(lambda i, c: i < 3, lambda i, c: (i + 1, c * ops.cos(c)), (0, x))[
            1
        ],
        lambda x: repeated(lambda c: c * np.cos(c), x, 3),
        [(3,)],
    ),
    (
        "dot_product_attention_causal",
        lambda q, k, v: ops.dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: np_attention(q, k, v, CAUSAL),
        [(1, 5, 2, 2), (1, 5, 2, 2), (1, 5, 2, 2)],
    ),
    (
        "dot_product_attention_mask",
        lambda q, k, v: ops.dot_product_attention(q, k, v, mask=PADDED),
        lambda q, k, v: np_attention(q, k, v, PADDED),
        [(2, 2, 1, 2), (2, 5, 1, 2), (2, 5, 1, 2)],
    ),
    (
        "conv1d",
        lambda x, k: ops.conv(x, k, padding="valid"),
        np_conv,
        [(1, 6, 2), (3, 2, 2)],
    ),
    (
        "depthwise_conv_causal",
        lambda x, k: ops.depthwise_conv(ops.pad(x, [[0, 0], [2, 0], [0, 0]]), k, padding="valid"),
        np_depthwise,
        [(1, 6, 3), (3, 3, 1)],
    ),
    (
        "one_hot_matmul",
        lambda w: ops.matmul(ops.one_hot(ROWS, 3), w),
        lambda w: np.eye(3)[ROWS] @ w,
        [(3, 4)],
    ),
    ("s4d_kernel", s4d_kernel, np_s4d_kernel, [positive(3), (3,), (3,)]),
    ("complex_chain", complex_chain, np_complex_chain, [(4,), (4,)]),
    ("fft_convolution", fft_convolution, np_fft_convolution, [(2, 5), (5,)]),
]


for length in (1, 2, 3, 5, 7, 8, 13):
    CASES.append((f"rfft_{length}", ops.rfft, lambda x: pair(np.fft.rfft(x)), [(2, length)]))
    CASES.append(
        (
            f"fft_{length}",
            lambda x, y: ops.fft((x, y)),
            lambda x, y: pair(np.fft.fft(x + 1j * y)),
            [(2, length), (2, length)],
        )
    )
    CASES.append(
        (
            f"irfft_{length}",
            lambda x, y, n=length: ops.irfft((x, y), fft_length=n),
            lambda x, y, n=length: np.fft.irfft(x + 1j * y, n=n),
            [(2, length // 2 + 1), (2, length // 2 + 1)],
        )
    )
    CASES.append(
        (
            f"associative_scan_{length}",
            affine_scan(1),
            lambda a, b: np_affine_scan(a, b, 1),
            [(2, length, 2), (2, length, 2)],
        )
    )
for length, n in ((5, 8), (5, 9), (8, 5), (7, 4), (1, 4)):
    CASES.append(
        (
            f"rfft_{length}_to_{n}",
            lambda x, n=n: ops.rfft(x, fft_length=n),
            lambda x, n=n: pair(np.fft.rfft(x, n=n)),
            [(2, length)],
        )
    )
for size, n in ((3, 8), (5, 5), (2, 7), (6, 3)):
    CASES.append(
        (
            f"irfft_{size}_to_{n}",
            lambda x, y, n=n: ops.irfft((x, y), fft_length=n),
            lambda x, y, n=n: np.fft.irfft(x + 1j * y, n=n),
            [(2, size), (2, size)],
        )
    )
CASES.append(
    (
        "associative_scan_reverse",
        affine_scan(0, reverse=True),
        lambda a, b: np_affine_scan(a[::-1], b[::-1], 0)[::-1],
        [(6, 2), (6, 2)],
    )
)
NAMES = [case[0] for case in CASES]
