"""The diagonal state-space model against its naive form: outputs, states, gradients, packing."""

import numpy as np
import pytest
from engines.support import (
    LENGTHS,
    compiled,
    error,
    fast,
    gradients,
    mask_of,
    normal,
    rng,
    segments_of,
    trains,
)
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines.linear_recurrence import diagonal_state_space, naive

WIDTH, STATES = 3, 2
NAMES = ("u", "log decay", "angle", "real", "imaginary", "d", "real past", "imaginary past")
OPTIONS = {
    "plain": {},
    "segments": {"segment_ids": True},
    "left": {"mask": "left"},
    "interior": {"mask": "interior"},
    "interior segments": {"mask": "interior", "segment_ids": True},
}


def inputs(time, batch=2, rate=-1.5):
    g = rng(0, time)
    u = normal(g, batch, time, WIDTH)
    shape = (WIDTH, STATES)
    log_decay = -np.exp(normal(g, *shape) + np.float32(rate))
    angle, real, imaginary = (normal(g, *shape) for _ in range(3))
    past = [normal(g, batch, *shape) for _ in range(2)]
    return [u, log_decay, angle, real, imaginary, normal(g, WIDTH), *past]


def options_of(name, batch, time):
    g = rng(7, time)
    options = dict(OPTIONS[name])
    if "mask" in options:
        options["mask"] = mask_of(g, batch, time, options["mask"])
    if "segment_ids" in options:
        options["segment_ids"] = segments_of(g, batch, time)
    return options


def run(function, tensors, **options):
    """Output and state in one vector."""
    u, log_decay, angle, real, imaginary, d, *past = tensors
    y, state = function(
        u,
        (log_decay, angle),
        (real, imaginary),
        d,
        initial_state=tuple(past),
        return_state=True,
        **options,
    )
    library = np if function is naive.diagonal_state_space else ops
    return library.concatenate([library.reshape(x, (-1,)) for x in (y, *state)])


@pytest.mark.parametrize(
    "time, name", [(time, "interior segments") for time in LENGTHS] + [(63, n) for n in OPTIONS]
)
def test_outputs_state_and_every_gradient(time, name):
    tensors, options = inputs(time), options_of(name, 2, time)
    expected = run(naive.diagonal_state_space, tensors, **options)

    def ours(*x):
        return run(diagonal_state_space, x, **options)

    if not backend.capabilities().trains:
        assert error(ours(*tensors), expected) < 3e-6
        return
    slope = normal(rng(3), *expected.shape)
    found = gradients(ours, NAMES, tensors, slope)
    assert error(found.pop("output"), expected) < 3e-6
    wide = [x.astype("float64") for x in tensors]
    for at, each in enumerate(NAMES):
        direction = rng(5, at).normal(size=wide[at].shape)
        sums = []
        for step in (1e-5, -1e-5):
            moved = [*wide[:at], wide[at] + step * direction, *wide[at + 1 :]]
            sums.append(np.sum(slope * run(naive.diagonal_state_space, moved, **options)))
        numeric = (sums[0] - sums[1]) / 2e-5
        got = backend.to_numpy(found[each]).astype("float64")
        scale = np.sqrt(np.sum(got**2))
        assert abs(np.sum(got * direction) - numeric) < 2e-5 * max(scale, 1e-3), each


@pytest.mark.parametrize("rate", (-6.0, 3.0))
def test_at_2000_with_long_and_with_no_memory(rate):
    """Decays from e^-0.002 down to below e^-20 a position."""
    tensors = inputs(2000, rate=rate)
    got = fast(lambda *x: run(diagonal_state_space, x))(*tensors)
    assert error(got, run(naive.diagonal_state_space, tensors)) < 1e-5


def test_a_state_goes_on_in_chunks_and_steps():
    u, log_decay, angle, real, imaginary, d, *past = inputs(200)
    a, c, state = (log_decay, angle), (real, imaginary), tuple(past)
    ids, mask = segments_of(rng(4), 2, 200), mask_of(rng(5), 2, 200, "interior")
    ids[:] = ids[:1]
    borders = [0, *(np.flatnonzero(ids[0, 1:] != ids[0, :-1]) + 1), 200]
    options = {"initial_state": state, "mask": mask, "segment_ids": ids}
    expected = naive.diagonal_state_space(u, a, c, d, **options)
    for first, last in zip(borders, borders[1:], strict=False):
        cuts = sorted({first, (first + last) // 2, min(first + 1, last), last})
        for start, end in zip(cuts, cuts[1:], strict=False):
            part = slice(start, end)
            y, state = diagonal_state_space(
                u[:, part], a, c, d, initial_state=state, return_state=True, mask=mask[:, part]
            )
            assert np.abs(backend.to_numpy(y) - expected[:, part]).max() < 2e-5
        state = tuple(ops.zeros_like(x) for x in state)


@trains
def test_padding_may_be_anything():
    tensors = inputs(40)
    mask = mask_of(rng(2), 2, 40, "interior")
    expected = run(naive.diagonal_state_space, tensors, mask=mask)
    bad = [np.where(mask[:, :, None], tensors[0], np.float32(np.nan)), *tensors[1:]]
    slope = normal(rng(3), *expected.shape)
    found = gradients(lambda *x: run(diagonal_state_space, x, mask=mask), NAMES, bad, slope)
    assert error(found.pop("output"), expected) < 3e-6
    assert all(np.isfinite(backend.to_numpy(x)).all() for x in found.values())


@pytest.mark.parametrize("dtype, tolerance", (("float16", 1e-2), ("bfloat16", 3e-2)))
def test_half_precision(dtype, tolerance):
    u, *others = inputs(63)
    a, c = tuple(others[:2]), tuple(others[2:4])
    y, state = diagonal_state_space(ops.cast(u, dtype), a, c, return_state=True)
    assert dtype in str(y.dtype) and all("float32" in str(x.dtype) for x in state)
    assert error(ops.cast(y, "float32"), naive.diagonal_state_space(u, a, c)) < tolerance


def test_64k_positions():
    """A slow rhythm after a single blow, whose answer is known at the end."""
    u = np.zeros((1, 65536, 1), "float32")
    u[0, 0] = 1.0
    a = np.full((1, 1), -1e-4, "float32"), np.full((1, 1), 2.0**-8, "float32")
    c = np.ones((1, 1), "float32"), np.zeros((1, 1), "float32")
    y, state = fast(lambda u: diagonal_state_space(u, a, c, return_state=True))(u)
    place = np.arange(65536.0)
    size = np.exp(place * np.float64(a[0][0, 0]))
    expected = (size * np.cos(place * 2.0**-8))[None, :, None]
    assert error(y, expected) < 3e-5
    assert abs(float(state[0][0, 0, 0]) - expected[0, -1, 0]) < 3e-5


@trains
def test_compiled_once_a_shape():
    u, *others = inputs(20)
    a, c = tuple(others[:2]), tuple(others[2:4])
    function, count = compiled(lambda u, h: diagonal_state_space(u, a, c, initial_state=h))
    h = tuple(ops.convert_to_tensor(x) for x in others[5:])
    for _ in range(3):
        function(ops.convert_to_tensor(u), h)
    assert len(count) <= 1


def test_what_cannot_be_is_refused():
    u, *others = inputs(5)
    a, c = tuple(others[:2]), tuple(others[2:4])
    with pytest.raises(ValueError, match="expected a pair"):
        diagonal_state_space(u, a[0], c)
    with pytest.raises(ValueError, match="Received the width D of c"):
        diagonal_state_space(u, a, tuple(x[:2] for x in c))
    with pytest.raises(ValueError, match="initial_state"):
        diagonal_state_space(u, a, c, initial_state=a[0])
