"""RWKV-4's weighted average against its naive form: outputs, states, gradients, packing."""

import numpy as np
import pytest
from engines.support import error, fast, gradients, mask_of, normal, rng, segments_of
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines.linear_recurrence import naive, wkv

NAMES = ("k", "v", "log_decay", "bonus", "numerator", "denominator")
OPTIONS = {
    "plain": {},
    "left": {"mask": "left"},
    "interior segments": {"mask": "interior", "segment_ids": True},
}
WIDTH = 3


def inputs(time, batch=2, seed=0):
    """Keys whose weights differ by many powers of ten, and a past."""
    g = rng(seed, time, 2)
    k, v = 8 * normal(g, batch, time, WIDTH), normal(g, batch, time, WIDTH)
    log_decay = -np.exp(normal(g, WIDTH))
    denominator = 1 + np.abs(normal(g, batch, WIDTH))
    return [k, v, log_decay, normal(g, WIDTH), normal(g, batch, WIDTH), denominator]


def options_of(name, batch, time):
    g = rng(7, time)
    options = dict(OPTIONS[name])
    if "mask" in options:
        options["mask"] = mask_of(g, batch, time, options["mask"])
    if "segment_ids" in options:
        options["segment_ids"] = segments_of(g, batch, time)
    return options


def call(function, tensors, **options):
    """The output, and what the state says whatever it is divided by, in one vector."""
    *tensors, numerator, denominator = tensors
    scale = np.full(numerator.shape, 0.5, "float32")
    state = {"numerator": numerator, "denominator": denominator, "log_scale": scale}
    y, state = function(*tensors, initial_state=state, return_state=True, **options)
    mean = state["numerator"] / state["denominator"]
    library = np if function is naive.wkv else ops
    return library.concatenate([library.reshape(y, (-1,)), library.reshape(mean, (-1,))])


def said(state, expected):
    """The average that each of two states holds, and the log of its weight, in pairs."""
    for each in ("average", "log weight"):
        yield [
            x["numerator"] / x["denominator"]
            if each == "average"
            else x["log_scale"] + log(x["denominator"])
            for x, log in ((state, ops.log), (expected, np.log))
        ]


@pytest.mark.parametrize(
    "time, name", [(1, "plain"), (63, "plain"), (20, "left"), (20, "interior segments")]
)
def test_output_state_and_gradients(time, name):
    tensors, options = inputs(time), options_of(name, 2, time)
    expected = call(naive.wkv, tensors, **options)

    def run(*x):
        return call(wkv, x, **options)

    if not backend.capabilities().trains:
        assert error(run(*tensors), expected) < 2e-6
        return
    slope = normal(rng(3), *expected.shape)
    found = gradients(run, NAMES, tensors, slope)
    assert error(found.pop("output"), expected) < 2e-6
    wide = [x.astype("float64") for x in tensors]
    for at, each in enumerate(NAMES):
        direction = rng(5, at).normal(size=wide[at].shape)
        sums = []
        for step in (1e-5, -1e-5):
            moved = [*wide[:at], wide[at] + step * direction, *wide[at + 1 :]]
            sums.append(np.sum(slope * call(naive.wkv, moved, **options)))
        got = backend.to_numpy(found[each]).astype("float64")
        close = 1e-5 * max(np.sqrt(np.sum(got**2)), 1e-2)
        assert abs(np.sum(got * direction) - (sums[0] - sums[1]) / 2e-5) < close, each


def test_any_key_and_decay_over_many_positions():
    """Keys far beyond what an exponential holds; channels that forget at once, or never."""
    time = 1000
    k, v = 60 * normal(rng(1), 1, time, WIDTH), normal(rng(2), 1, time, WIDTH)
    log_decay = np.array([-50.0, -1e-3, 0.0], "float32")
    bonus = np.array([30.0, -30.0, 0.0], "float32")
    got, state = fast(lambda *x: wkv(*x, return_state=True))(k, v, log_decay, bonus)
    expected, after = naive.wkv(k, v, log_decay, bonus, return_state=True)
    assert error(got, expected) < 3e-5
    assert all(error(got, want) < 3e-5 for got, want in said(state, after))


def test_chunks_and_steps_equal_the_whole_and_nothing_is_no_weight():
    k, v, log_decay, bonus, *_ = inputs(20)
    expected, after = naive.wkv(k, v, log_decay, bonus, return_state=True)
    outputs, state = [], None
    for start, end in ((0, 9), (9, 10), (10, 11), (11, 20)):
        here = (k[:, start:end], v[:, start:end], log_decay, bonus)
        y, state = wkv(*here, initial_state=state, return_state=True)
        outputs.append(backend.to_numpy(y))
    assert error(np.concatenate(outputs, 1), expected) < 2e-6
    assert all(error(got, want) < 2e-6 for got, want in said(state, after))


def test_padding_of_any_value_changes_nothing():
    k, v, log_decay, bonus, *_ = inputs(20)
    mask = mask_of(rng(2), 2, 20, "interior")
    mask[:, 0] = False
    bad = [np.where(mask[:, :, None], x, np.nan) for x in (k, v)]
    expected = naive.wkv(k, v, log_decay, bonus, mask=mask)
    assert error(wkv(*bad, log_decay, bonus, mask=mask), expected) < 2e-6
    if backend.capabilities().trains:
        found = gradients(
            lambda *x: wkv(*x, mask=mask),
            NAMES[:4], (*bad, log_decay, bonus), normal(rng(3), *expected.shape),
        )  # fmt: skip
        assert all(np.isfinite(backend.to_numpy(x)).all() for x in found.values())


@pytest.mark.parametrize("dtype, tolerance", (("float16", 1e-2), ("bfloat16", 5e-2)))
def test_half_precision(dtype, tolerance):
    given = [ops.cast(x, dtype) for x in inputs(63)[:4]]
    got, state = wkv(*given, return_state=True)
    assert dtype in str(got.dtype) and "float32" in str(state["numerator"].dtype)
    rounded = [backend.to_numpy(ops.cast(x, "float32")) for x in given]
    assert error(ops.cast(got, "float32"), naive.wkv(*rounded)) < tolerance


@pytest.mark.parametrize(
    "change, words",
    (
        ({"k": np.ones((2, 5, 4), "float32")}, "the width D of k = 4; expected 3"),
        ({"bonus": np.ones((2,), "float32")}, "the width D of bonus = 2; expected 3"),
        ({"v": np.ones((2, 0, 3), "float32")}, "at least one"),
        ({"initial_state": np.ones((2, 3), "float32")}, "expected a dict of numerator, denom"),
        ({"initial_state": {"numerator": 0}}, "a dict of numerator, denominator, log_scale"),
    ),
)
def test_bad_input_is_refused(change, words):
    ones = np.ones((2, 5, 3), "float32")
    with pytest.raises(ValueError, match=words):
        wkv(**{"k": ones, "v": ones, "log_decay": -ones[0, 0], "bonus": ones[0, 0], **change})
