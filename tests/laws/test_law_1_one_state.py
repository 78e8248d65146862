"""Law 1: a full pass equals any split into prefilled chunks equals step by step."""

import numpy as np
import pytest
from laws import cases
from laws.support import call, numpy_of, run, run_chunks, run_steps, step

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

TIME = 13
# With a state that grows (None), and with room for exactly as much, or for more.
SPLITS = [([5, 8], None), ([1, 1, 11], None), ([8, 5], TIME), ([1, 5, 5, 1, 1], 20)]


def _expected_and_given(case, y, outputs):
    """What to compare: all positions, or the last answer of what summarizes."""
    if case.summarizes:
        return y, outputs[-1]
    return y, np.concatenate(outputs, axis=1)


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_any_split_gives_the_full_pass(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 2, TIME)
    y = run(layer, x)
    for split, max_length in SPLITS:
        outputs, _ = run_chunks(layer, x, split, max_length)
        expected, given = _expected_and_given(case, y, outputs)
        assert_close(given, expected, name=f"split {split}")


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL + cases.NAMED))
def test_steps_give_the_full_pass(case, rng, assert_close):
    layer = case.build()
    for max_length, time in ((None, 4), (TIME, TIME)):
        x = case.inputs(rng, 2, time)
        outputs, _ = run_steps(layer, x, layer.initial_state(2, max_length))
        y = run(layer, x)
        assert_close(outputs[-1] if case.summarizes else np.stack(outputs, axis=1), y)


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE + cases.CHANNEL))
def test_float64_is_float64_throughout_or_refused(case, rng, assert_close):
    """A part in float32 would differ between the forms by 1e-8 of the scale."""
    if not ek.backend.capabilities().float64:
        with pytest.raises(ValueError, match="received dtype='float64'"):
            case.build_anew(dtype="float64")
        return
    layer = case.build(dtype="float64")
    x = case.inputs(rng, 2, TIME)
    x = x if case.takes_tokens else x + rng.normal(size=x.shape) * 1e-9  # Of float64's digits.
    y = run(layer, x)
    assert y.dtype == "float64"
    if case not in cases.CAUSAL:
        return
    outputs, state = run_chunks(layer, x[:, :8], [5, 1, 2], TIME)
    steps, _ = run_steps(layer, x[:, 8:], state)
    expected, given = _expected_and_given(
        case, y, [*outputs, *(steps if case.summarizes else [np.stack(steps, axis=1)])]
    )
    assert_close(given, expected, 1e-10)


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_a_fresh_call_returns_a_state_that_goes_on(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 2, TIME)
    y_first, state = call(layer, x[:, :6], return_state=True)
    y_last, _ = call(layer, x[:, 6:], state=state, return_state=True)
    expected, given = _expected_and_given(
        case, run(layer, x), [ek.backend.to_numpy(y_first), ek.backend.to_numpy(y_last)]
    )
    assert_close(given, expected)


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_a_state_keeps_its_structure_and_dtypes(case, rng):
    layer = case.build()
    x = case.inputs(rng, 2, TIME)
    before = layer.initial_state(2, TIME)
    _, after = call(layer, x[:, :5], state=before, return_state=True)
    _, later = step(layer, x[:, 5], after)
    from keras import tree

    for state in (after, later):
        tree.assert_same_structure(before, state)
        for old, new in zip(tree.flatten(before), tree.flatten(state), strict=True):
            assert old.dtype == new.dtype and tuple(old.shape) == tuple(new.shape)


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_rows_with_padding_leave_the_state_of_their_real_positions(case, rng, assert_close):
    """Prompts of different lengths, padded on the right, then stepped together."""
    layer = case.build()
    x = case.inputs(rng, 3, TIME)
    lengths = np.array([4, 6, 1])
    mask = np.arange(6)[None, :] < lengths[:, None]
    before = layer.initial_state(3, TIME)
    _, state = call(layer, x[:, :6], state=before, mask=mask, return_state=True)
    more = case.inputs(rng, 3, 3)
    outputs, state = run_steps(layer, more, state)
    for row, length in enumerate(lengths):
        alone = np.concatenate([x[row : row + 1, :length], more[row : row + 1]], axis=1)
        expected = run(layer, alone)[0]
        given = np.stack(outputs, axis=1)[row]
        if case.summarizes:
            assert_close(given[-1], expected, name=f"row {row}")
        else:
            assert_close(given, expected[length:], name=f"row {row}")
    assert all(np.isfinite(np.asarray(leaf, "float64")).all() for leaf in _finite(state))


def _finite(state):
    from keras import tree

    return [leaf for leaf in tree.flatten(numpy_of(state)) if leaf.dtype.kind != "f" or leaf.size]


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_more_positions_than_a_state_has_room_for_are_refused(case, rng):
    layer = case.build()
    x = case.inputs(rng, 1, TIME)
    state = layer.initial_state(1, 4)
    if "capacity" not in str(state):
        y, _ = call(
            layer, x, state=state, return_state=True
        )  # Nothing is kept that could overflow.
        assert np.isfinite(ek.backend.to_numpy(y)).all()
        return
    with pytest.raises(ValueError, match="max_length"):
        layer(x, state=state, return_state=True)


@pytest.mark.parametrize("case", **cases.by_id(cases.BIDIRECTIONAL))
def test_what_is_bidirectional_says_it_has_no_state(case, rng):
    layer = case.build()
    x = case.inputs(rng, 1, 5)
    for attempt in (
        lambda: layer.initial_state(1),
        lambda: layer.step(x[:, 0], {}),
        lambda: layer(x, return_state=True),
    ):
        with pytest.raises(ValueError, match="bidirectional"):
            attempt()


def _holds_tensors(state):
    return bool(keras.tree.flatten(state))


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
@pytest.mark.parametrize("wrong", ["number", "list", "dict", "rows"])
def test_what_is_no_state_of_the_layer_is_refused(case, rng, wrong):
    layer = case.build()
    state = layer.initial_state(2)
    if not _holds_tensors(state):
        pytest.skip("mixes channels only, so any state is empty")
    given = {
        "number": 3,
        "list": [3] * 17,
        "dict": {"mixer": 3, "segment": 3},
        "rows": layer.initial_state(1),
    }[wrong]
    with pytest.raises(ValueError, match=r"received a state .* `initial_state`"):
        layer(case.inputs(rng, 2, 3), state=given, return_state=True)
