"""Gated linear attention against its naive form: outputs, states, gradients, strong decays."""

import numpy as np
import pytest
from engines.support import (
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
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention, naive

LENGTHS = (1, 2, 63, 100, 257)
NAMES = ("q", "k", "v", "log_decay", "initial_state", "bonus")
FORMS = {
    "head": {},
    "channel": {"channel": True},
    "groups": {"groups": 2},
    "groups, channel": {"groups": 2, "channel": True},
    "bonus": {"bonus": True},
    "bonus, channel": {"bonus": True, "channel": True},
}
PLACES = {
    "plain": {},
    "mask": {"mask": "interior"},
    "left": {"mask": "left"},
    "right": {"mask": "right"},
    "segments": {"segment_ids": True},
    "everything": {"mask": "interior", "segment_ids": True},
}
HEADS, WIDTH, VALUES = 4, 6, 5


def inputs(form, time, batch=2, seed=0, strength=3.0):
    """The tensors by name; log decays are mostly weak, and now and then e^-20 and below."""
    options, g = FORMS[form], rng(seed, time)
    groups = options.get("groups", HEADS)
    shape = (HEADS, WIDTH) if options.get("channel") else (HEADS,)
    found = {
        "q": normal(g, batch, time, groups, WIDTH),
        "k": normal(g, batch, time, groups, WIDTH),
        "v": normal(g, batch, time, HEADS, VALUES),
        "log_decay": -np.exp(strength * normal(g, batch, time, *shape) - 3).clip(0, 25),
        "initial_state": normal(g, batch, HEADS, WIDTH, VALUES),
    }
    if options.get("bonus"):
        found["bonus"] = normal(g, HEADS, WIDTH)
    return found


def places(name, time, batch=2):
    options, g = dict(PLACES[name]), rng(7, time)
    if "mask" in options:
        options["mask"] = mask_of(g, batch, time, options["mask"])
    if "segment_ids" in options:
        options["segment_ids"] = segments_of(g, batch, time)
    return options


def joined(function, names, **options):
    """A function of tensors by position; the output and the state as one row a sequence."""

    def run(*tensors):
        o, state = function(**dict(zip(names, tensors, strict=True)), **options, return_state=True)
        library = np if isinstance(o, np.ndarray) else ops
        rows = [library.reshape(x, (x.shape[0], -1)) for x in (o, state)]
        return library.concatenate(rows, axis=1)

    return run


CASES = [(100, form, place) for form in ("head", "channel") for place in PLACES]
CASES += [(100, form, "everything") for form in FORMS if form not in ("head", "channel")]
CASES += [
    (time, form, "everything") for time in LENGTHS if time != 100 for form in ("head", "channel")
]
CASES += [(1, "bonus, channel", "plain"), (3, "groups", "mask")]


@pytest.mark.parametrize("time, form, place", CASES)
def test_outputs_states_and_gradients(time, form, place):
    """Each gradient's product with a random direction is the difference of the naive form."""
    tensors, options = inputs(form, time), places(place, time)
    names = tuple(tensors)
    expected = joined(naive.gated_linear_attention, names, **options)(*tensors.values())
    here = joined(gated_linear_attention, names, **options)
    if not backend.capabilities().trains:
        assert error(here(*(ops.convert_to_tensor(x) for x in tensors.values())), expected) < 2e-6
        return
    slope = normal(rng(3, time), *expected.shape)
    found = gradients(here, names, tuple(tensors.values()), slope)
    assert error(found["output"], expected) < 2e-6
    wide = {name: x.astype("float64") for name, x in tensors.items()}
    naive_form = joined(naive.gated_linear_attention, names, **options)
    for at, name in enumerate(names):
        gradient = backend.to_numpy(found[name]).astype("float64")
        direction = rng(5, at).normal(size=gradient.shape) / gradient.size**0.5
        ends = [
            np.sum(slope * naive_form(*{**wide, name: wide[name] + step * direction}.values()))
            for step in (1e-5, -1e-5)
        ]
        scale = max(np.sqrt(np.mean(gradient**2)), 1e-3)
        assert abs(np.sum(gradient * direction) - (ends[0] - ends[1]) / 2e-5) < 2e-5 * scale, name


@pytest.mark.parametrize("form", ("head", "channel"))
def test_outputs_at_2000(form):
    tensors, options = inputs(form, 2000, batch=1), places("everything", 2000, batch=1)
    names = tuple(tensors)
    here = fast(joined(gated_linear_attention, names, **options))
    expected = joined(naive.gated_linear_attention, names, **options)(*tensors.values())
    assert error(here(*tensors.values()), expected) < 3e-6


@pytest.mark.parametrize("form", FORMS)
def test_any_split_equals_the_whole(form):
    tensors = inputs(form, 80)
    state, bonus = tensors.pop("initial_state"), tensors.pop("bonus", None)
    options = places("everything", 80)
    # The past belongs to the first run of a chunk, so the cuts are inside one segment.
    options["segment_ids"][:, :72], options["mask"][:, 71] = 3, True
    options["segment_ids"][:, 75:] = 90
    expected, last = naive.gated_linear_attention(
        **tensors, bonus=bonus, initial_state=state, return_state=True, **options
    )

    def run(state, *values):
        outputs = []
        for a, b in ((0, 1), (1, 66), (66, 70), (70, 71), (71, 80)):
            part = {name: x[:, a:b] for name, x in zip(tensors, values, strict=True)}
            part |= {name: x[:, a:b] for name, x in options.items()}
            o, state = gated_linear_attention(
                **part, bonus=bonus, initial_state=state, return_state=True
            )
            outputs.append(o)
        return ops.concatenate(outputs, axis=1), state

    got, after = fast(run)(state, *tensors.values())
    assert error(got, expected) < 2e-6
    assert error(after, last) < 2e-6


@pytest.mark.parametrize("form", ("head", "channel"))
def test_decays_of_every_strength_are_exact(form):
    """A weak decay after a strong one is as exact as alone: sums of logs would lose it."""
    tensors = inputs(form, 128)
    strong = rng(9).random(tensors["log_decay"].shape) < 0.3
    tensors["log_decay"] = np.where(strong, -20.0, -1e-3).astype("float32")
    names = tuple(tensors)
    expected = joined(naive.gated_linear_attention, names)(*tensors.values())
    got = joined(gated_linear_attention, names)(
        *(ops.convert_to_tensor(x) for x in tensors.values())
    )
    assert error(got, expected) < 1e-6


@trains
@pytest.mark.parametrize("form", ("head", "channel"))
def test_a_decay_of_zero_cuts_cleanly(form):
    tensors = inputs(form, 90)
    tensors["log_decay"][:, 40] = -np.inf
    names = tuple(tensors)
    expected = joined(naive.gated_linear_attention, names)(*tensors.values())
    slope = normal(rng(4), *expected.shape)
    found = gradients(joined(gated_linear_attention, names), names, tuple(tensors.values()), slope)
    assert error(found["output"], expected) < 2e-6
    assert all(np.isfinite(backend.to_numpy(found[name])).all() for name in names)


@pytest.mark.parametrize("form", ("head", "channel"))
def test_64k_positions_stay_exact(form):
    """Decays so weak that the first position still counts at the last."""
    time, g = 2**16, rng(11)
    shape = (1, time, 1, 2) if form == "channel" else (1, time, 1)
    q, k, v = (normal(g, 1, time, 1, 2) for _ in range(3))
    log_decay = -np.abs(normal(g, *shape)) * 1e-4
    o, state = fast(lambda *x: gated_linear_attention(*x, return_state=True))(
        *(ops.convert_to_tensor(x) for x in (q, k, v, log_decay))
    )
    sums = np.cumsum(log_decay.astype("float64").reshape(1, time, -1), axis=1)
    update = k.astype("float64")[0, :, 0, :, None] * v.astype("float64")[0, :, 0, None, :]
    weight = np.exp(sums[0, -1] - sums[0])[:, :, None]
    assert error(state, np.sum(weight * update, axis=0)[None, None]) < 1e-5
    assert np.isfinite(backend.to_numpy(o)).all()


def test_padding_of_any_value_changes_nothing():
    tensors, options = inputs("channel", 40), places("mask", 40)
    names = tuple(tensors)
    expected = joined(naive.gated_linear_attention, names, **options)(*tensors.values())
    for name in ("q", "k", "v", "log_decay"):
        mask = options["mask"].reshape(2, 40, *(1,) * (tensors[name].ndim - 2))
        tensors[name] = np.where(mask, tensors[name], np.nan)
    got = joined(gated_linear_attention, names, **options)(
        *(ops.convert_to_tensor(x) for x in tensors.values())
    )
    assert error(got, expected) < 2e-6


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
@pytest.mark.parametrize("form", ("head", "channel"))
def test_half_precision(form, dtype):
    tensors = inputs(form, 100)
    del tensors["initial_state"]
    expected = naive.gated_linear_attention(**tensors)
    half = {name: ops.cast(x, dtype) for name, x in tensors.items()}
    o, state = gated_linear_attention(**half, return_state=True)
    assert dtype in str(o.dtype) and "float32" in str(state.dtype)
    assert error(ops.cast(o, "float32"), expected) < 3e-2


@pytest.mark.parametrize("time", (1, 70))
def test_one_trace_a_shape(time):
    tensors = inputs("channel", time)
    names = tuple(tensors)
    run, count = compiled(joined(gated_linear_attention, names))
    for _ in range(3):
        run(*(ops.convert_to_tensor(x) for x in tensors.values()))
    assert len(count) == 1


@pytest.mark.parametrize(
    "change, words",
    (
        ({"q": (2, 9, 3, 6)}, "groups G of k"),
        ({"q": (2, 9, 3, 6), "k": (2, 9, 3, 6)}, "4 heads in v and 3 groups"),
        ({"k": (2, 9, 4, 7)}, "width K of k"),
        ({"v": (2, 8, 4, 5)}, "length T of q"),
        ({"log_decay": (2, 9, 3)}, "heads H of log_decay"),
        ({"log_decay": (2, 9)}, "expected .B, T, H."),
        ({"initial_state": (2, 4, 6, 6)}, "initial_state of shape"),
    ),
)
def test_shapes_that_do_not_agree_are_refused(change, words):
    tensors = inputs("head", 9)
    tensors |= {name: np.zeros(shape, "float32") for name, shape in change.items()}
    with pytest.raises(ValueError, match=words):
        gated_linear_attention(**tensors)
