"""The engines with a matrix for a state, against their naive forms: values, gradients, decays."""

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
from ember_keras.ops.engines.delta_rule import delta_rule
from ember_keras.ops.engines.delta_rule import naive as naive_delta_rule
from ember_keras.ops.engines.gated_linear_attention import gated_linear_attention
from ember_keras.ops.engines.gated_linear_attention import naive as naive_linear_attention
from ember_keras.ops.kernels import chunked

LENGTHS = (1, 2, 63, 100, 257)
FORMS = {
    "head": {},
    "channel": {"channel": True},
    "groups": {"groups": 2},
    "groups, channel": {"groups": 2, "channel": True},
    "bonus": {"bonus": True},
    "bonus, channel": {"bonus": True, "channel": True},
    "weighted": {"weighted": True},
    "weighted groups": {"weighted": True, "groups": 2, "bonus": True},
    "weighted, channel": {"weighted": True, "channel": True},
    "weighted, channel, bonus": {"weighted": True, "channel": True, "bonus": True},
    "delta": {"beta": True},
    "delta, channel": {"beta": True, "channel": True},
    "delta, no decay": {"beta": True, "decays": False},
    "erase": {"beta": True, "erase": True},
    "erase, channel": {"beta": True, "erase": True, "channel": True},
}
MAIN = ("head", "channel", "weighted", "delta", "delta, channel")
PLACES = {
    "plain": {},
    "mask": {"mask": "interior"},
    "left": {"mask": "left"},
    "right": {"mask": "right"},
    "segments": {"segment_ids": True},
    "everything": {"mask": "interior", "segment_ids": True},
}
HEADS, WIDTH, VALUES = 4, 6, 5


@pytest.fixture(autouse=True)
def kernels_take_small_sizes(monkeypatch):
    """What is tested here is a kernel's arithmetic too, whatever sizes it pays for."""
    monkeypatch.setattr(chunked, "LEAST", 0)


def inputs(form, time, batch=2, seed=0):
    """The tensors by name; log decays are mostly weak, and now and then e^-20 and below."""
    options, g = FORMS[form], rng(seed, time)
    groups = options.get("groups", HEADS)
    shape = (HEADS, WIDTH) if options.get("channel") else (HEADS,)
    found = {
        "q": normal(g, batch, time, groups, WIDTH),
        "k": normal(g, batch, time, groups, WIDTH),
        "v": normal(g, batch, time, HEADS, VALUES),
    }
    if options.get("decays", True):
        found["log_decay"] = -np.exp(3.0 * normal(g, batch, time, *shape) - 3).clip(0, 25)
    if options.get("bonus"):
        found["bonus"] = normal(g, HEADS, WIDTH)
    if options.get("weighted"):
        found["beta"], found["d"] = normal(g, batch, time, HEADS), normal(g, HEADS)
        found["beta"][0, :1] = 0
    if options.get("beta"):
        found["k"] /= np.linalg.norm(found["k"], axis=-1, keepdims=True)
        found["beta"] = 2 * g.random((batch, time, HEADS)).astype("float32")
    if options.get("erase"):
        removed = normal(g, batch, time, HEADS, WIDTH)
        found["removed"] = removed / np.linalg.norm(removed, axis=-1, keepdims=True)
        found["towards"] = found["removed"] * g.random((batch, time, HEADS, WIDTH), "float32")
    return {**found, "initial_state": normal(g, batch, HEADS, WIDTH, VALUES)}


def engine(form, naive=False):
    """The engine of a form as a function of the tensors by name and options."""
    if not FORMS[form].get("beta"):
        return naive_linear_attention.gated_linear_attention if naive else gated_linear_attention
    function = naive_delta_rule.delta_rule if naive else delta_rule

    def run(*, removed=None, towards=None, **tensors):
        erase = None if removed is None else (removed, towards)
        return function(**tensors, erase=erase)

    return run


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


CASES = [(100, form, place) for form in MAIN for place in PLACES]
CASES += [(100, form, "everything") for form in FORMS if form not in MAIN]
CASES += [(time, form, "everything") for time in LENGTHS if time != 100 for form in MAIN]
CASES += [(1, "bonus, channel", "plain"), (3, "groups", "mask")]


@pytest.mark.parametrize("time, form, place", CASES)
def test_outputs_states_and_gradients(time, form, place):
    """Each gradient's product with a random direction is the difference of the naive form."""
    tensors, options = inputs(form, time), places(place, time)
    names = tuple(tensors)
    expected = joined(engine(form, naive=True), names, **options)(*tensors.values())
    here = joined(engine(form), names, **options)
    if not backend.capabilities().trains:
        assert error(here(*(ops.convert_to_tensor(x) for x in tensors.values())), expected) < 2e-6
        return
    slope = normal(rng(3, time), *expected.shape)
    found = gradients(here, names, tuple(tensors.values()), slope)
    assert error(found["output"], expected) < 2e-6
    wide = {name: x.astype("float64") for name, x in tensors.items()}
    naive_form = joined(engine(form, naive=True), names, **options)
    for at, name in enumerate(names):
        gradient = backend.to_numpy(found[name]).astype("float64")
        direction = rng(5, at).normal(size=gradient.shape) / gradient.size**0.5
        ends = [
            np.sum(slope * naive_form(*{**wide, name: wide[name] + step * direction}.values()))
            for step in (1e-5, -1e-5)
        ]
        scale = max(np.sqrt(np.mean(gradient**2)), 1e-3)
        assert abs(np.sum(gradient * direction) - (ends[0] - ends[1]) / 2e-5) < 2e-5 * scale, name


@trains
@pytest.mark.parametrize("form", MAIN)
def test_compiled_gradients_are_the_same(form):
    if backend.name() in ("jax", "torch"):
        pytest.skip("every test compiles on jax; torch.compile has tests of its own")
    tensors, options = inputs(form, 70), places("everything", 70)
    here = joined(engine(form), tuple(tensors), **options)
    slope = normal(rng(4), *here(*(ops.convert_to_tensor(x) for x in tensors.values())).shape)
    arguments = (here, tuple(tensors), tuple(tensors.values()), slope)
    eager, compiled_ones = gradients(*arguments), gradients(*arguments, run=backend.compile)
    for name, expected in eager.items():
        assert error(compiled_ones[name], backend.to_numpy(expected)) < 1e-5, name


@pytest.mark.parametrize("form", MAIN)
def test_outputs_at_2000(form):
    tensors, options = inputs(form, 2000, batch=1), places("everything", 2000, batch=1)
    names = tuple(tensors)
    here = fast(joined(engine(form), names, **options))
    expected = joined(engine(form, naive=True), names, **options)(*tensors.values())
    assert error(here(*tensors.values()), expected) < 3e-6


@pytest.mark.parametrize("form", FORMS)
def test_any_split_equals_the_whole(form):
    tensors = inputs(form, 80)
    state = tensors.pop("initial_state")
    whole = {name: tensors.pop(name) for name in ("bonus", "d") if name in tensors}
    options = places("everything", 80)
    # The past belongs to the first run of a chunk, so the cuts are inside one segment.
    options["segment_ids"][:, :72], options["mask"][:, 71] = 3, True
    options["segment_ids"][:, 75:] = 90
    expected, last = engine(form, naive=True)(
        **tensors, **whole, initial_state=state, return_state=True, **options
    )

    def run(state, *values):
        outputs = []
        for a, b in ((0, 1), (1, 66), (66, 70), (70, 71), (71, 80)):
            part = {name: x[:, a:b] for name, x in zip(tensors, values, strict=True)}
            part |= {name: x[:, a:b] for name, x in options.items()}
            o, state = engine(form)(**part, **whole, initial_state=state, return_state=True)
            outputs.append(o)
        return ops.concatenate(outputs, axis=1), state

    got, after = fast(run)(state, *tensors.values())
    assert error(got, expected) < 2e-6
    assert error(after, last) < 2e-6


@pytest.mark.parametrize("form", MAIN)
def test_decays_of_every_strength_are_exact(form):
    """A weak decay after a strong one is as exact as alone: sums of logs would lose it."""
    tensors = inputs(form, 128)
    strong = rng(9).random(tensors["log_decay"].shape) < 0.3
    tensors["log_decay"] = np.where(strong, -20.0, -1e-3).astype("float32")
    names = tuple(tensors)
    expected = joined(engine(form, naive=True), names)(*tensors.values())
    got = joined(engine(form), names)(*(ops.convert_to_tensor(x) for x in tensors.values()))
    assert error(got, expected) < 1e-6


@trains
@pytest.mark.parametrize(
    "form",
    (*MAIN, "groups", "weighted groups", "bonus", "bonus, channel", "erase, channel"),
)
def test_the_gradient_of_strong_decays_is_no_rounding(form):
    """The gradient of decays near e^-12 is small: what cancels must not be summed."""
    tensors = inputs(form, 70)
    strong = -12.0 - rng(8).random(tensors["log_decay"].shape)
    tensors["log_decay"] = strong.astype("float32")
    names = tuple(tensors)
    naive_form = joined(engine(form, naive=True), names)
    slope = normal(rng(6), *naive_form(*tensors.values()).shape)
    found = gradients(joined(engine(form), names), names, tuple(tensors.values()), slope)
    got = backend.to_numpy(found["log_decay"]).astype("float64")
    wide = {name: x.astype("float64") for name, x in tensors.items()}
    largest = np.unravel_index(np.abs(got).argmax(), got.shape)
    for position in (largest, (0, 0, 0, 1), (0, 3, 1, 0), (1, 64, 2, 2), (1, 69, 3, 1)):
        position = position[: got.ndim]
        ends = []
        for step in (1e-3, -1e-3):
            moved = wide["log_decay"].copy()
            moved[position] += step
            ends.append(np.sum(slope * naive_form(*{**wide, "log_decay": moved}.values())))
        expected = (ends[0] - ends[1]) / 2e-3
        assert abs(got[position] - expected) < 1e-5 * np.abs(got).max(), position


@trains
@pytest.mark.parametrize("form", MAIN)
def test_a_decay_of_zero_cuts_cleanly(form):
    tensors = inputs(form, 90)
    tensors["log_decay"][:, 40] = -np.inf
    names = tuple(tensors)
    expected = joined(engine(form, naive=True), names)(*tensors.values())
    slope = normal(rng(4), *expected.shape)
    found = gradients(joined(engine(form), names), names, tuple(tensors.values()), slope)
    assert error(found["output"], expected) < 2e-6
    assert all(np.isfinite(backend.to_numpy(found[name])).all() for name in names)


@pytest.mark.parametrize("form", MAIN)
def test_64k_positions_stay_exact(form):
    """Decays so weak that the first position still counts at the last."""
    tensors = {
        name: x[:, :, :1] if x.ndim > 1 else x[:1]
        for name, x in inputs(form, 2**16, batch=1).items()
    }
    tensors["log_decay"] = -np.abs(tensors["log_decay"]) * 1e-4
    tensors["initial_state"] = normal(rng(12), 1, 1, WIDTH, VALUES)
    names = tuple(tensors)
    expected = joined(engine(form, naive=True), names)(*tensors.values())
    got = fast(joined(engine(form), names))(*(ops.convert_to_tensor(x) for x in tensors.values()))
    assert error(got, expected) < 1e-5


@pytest.mark.parametrize("form", ("channel", "erase, channel"))
def test_padding_of_any_value_changes_nothing(form):
    tensors, options = inputs(form, 40), places("mask", 40)
    names = tuple(tensors)
    expected = joined(engine(form, naive=True), names, **options)(*tensors.values())
    for name in names:
        if name != "initial_state":
            mask = options["mask"].reshape(2, 40, *(1,) * (tensors[name].ndim - 2))
            tensors[name] = np.where(mask, tensors[name], np.nan)
    here = joined(engine(form), names, **options)
    assert error(here(*(ops.convert_to_tensor(x) for x in tensors.values())), expected) < 2e-6


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
@pytest.mark.parametrize("form", MAIN)
def test_half_precision(form, dtype):
    tensors = inputs(form, 100)
    del tensors["initial_state"]
    expected = engine(form, naive=True)(**tensors)
    half = {name: ops.cast(x, dtype) for name, x in tensors.items()}
    o, state = engine(form)(**half, return_state=True)
    assert dtype in str(o.dtype) and "float32" in str(state.dtype)
    assert error(ops.cast(o, "float32"), expected) < 3e-2


@pytest.mark.parametrize("time", (1, 70))
@pytest.mark.parametrize("form", ("channel", "delta, channel"))
def test_one_trace_a_shape(form, time):
    tensors = inputs(form, time)
    run, count = compiled(joined(engine(form), tuple(tensors)))
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
        ({"beta": (2, 8, 4)}, "length T of beta"),
        ({"beta": (2, 9)}, "expected .B, T, H."),
        ({"d": (3,)}, "heads H of d"),
        ({"initial_state": (2, 4, 6, 6)}, "initial_state of shape"),
    ),
)
def test_shapes_that_do_not_agree_are_refused(change, words):
    tensors = inputs("head", 9)
    tensors |= {name: np.zeros(shape, "float32") for name, shape in change.items()}
    with pytest.raises(ValueError, match=words):
        gated_linear_attention(**tensors)


@pytest.mark.parametrize(
    "change, words",
    (
        ({"k": (2, 9, 4, 7)}, "width K of k"),
        ({"v": (2, 8, 4, 5)}, "length T of v"),
        ({"beta": (2, 9, 3)}, "heads H of beta"),
        ({"log_decay": (2, 9, 4, 5)}, "width K of log_decay"),
        ({"removed": (2, 9, 4, 5)}, r"width K of erase\[0\]"),
        ({"initial_state": (2, 4, 6, 6)}, "initial_state of shape"),
    ),
)
def test_shapes_that_do_not_agree_are_refused_by_the_delta_rule(change, words):
    tensors = inputs("erase", 9)
    tensors |= {name: np.zeros(shape, "float32") for name, shape in change.items()}
    with pytest.raises(ValueError, match=words):
        engine("erase")(**tensors)
    with pytest.raises(ValueError, match="a pair"):
        delta_rule(*(tensors[name] for name in ("q", "k", "v", "beta")), erase=tensors["k"])
