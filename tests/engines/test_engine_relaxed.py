"""Steps of a state that holds its filter: exact, in blocks, with work that grows as log^2."""

import re

import numpy as np
import pytest
from engines.support import compiled, error, gradients, normal, rng, trains
from keras import ops, tree

from ember_keras import backend
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state, naive, parallel, relaxed

BATCH, WIDTH = 3, 2


def inputs(time, taps, seed=0):
    g = rng(seed, time, taps)
    return normal(g, BATCH, time, WIDTH), normal(g, taps, WIDTH), normal(g, WIDTH)


def state_of(k, max_length):
    return fft_conv_state(BATCH, WIDTH, max_length, k=k)


def cut(state):
    """A state that has lost a part."""
    return {key: part for key, part in state.items() if key != "blocks"}


def _step(u, mask, d, state):
    return fft_conv(u, None, d, initial_state=state, mask=mask, return_state=True)


# One function for all tests: a capacity is compiled once.
STEP = _step if backend.name() == "mlx" else backend.compile(_step)
ROOM = 180


def steps(u, d, state, mask=None):
    """Outputs of one position after another, in numpy, and the last state."""
    mask = np.ones(u.shape[:2], bool) if mask is None else mask
    outputs, d = [], ops.convert_to_tensor(d)
    for t in range(u.shape[1]):
        here = (ops.convert_to_tensor(x[:, t : t + 1]) for x in (u, mask))
        y, state = STEP(*here, d, state)
        outputs.append(backend.to_numpy(y))
    return np.concatenate(outputs, axis=1), state


@pytest.mark.parametrize("prompt", (0, 1, 37, 100))
def test_300_steps_after_a_prompt_are_the_whole(prompt):
    u, k, d = inputs(prompt + 300, 450)
    state = state_of(k, 410)
    if prompt:
        _, state = fft_conv(u[:, :prompt], k, d, initial_state=state, return_state=True)
    got, after = steps(u[:, prompt:], d, state)
    expected = naive.fft_conv(u, k, d)
    assert error(got, expected[:, prompt:]) < 3e-6
    np.testing.assert_array_equal(backend.to_numpy(after["length"]), [prompt + 300] * BATCH)
    assert error(relaxed.plain(after)["input"][:, : prompt + 300], u.astype("float64")) == 0
    assert error(after["taps"], k[:410].astype("float64")) == 0


@pytest.mark.parametrize(
    "max_length, taps", ((1, 1), (7, 7), (16, 16), (17, 30), (33, 5), (65, 90))
)
def test_any_capacity_and_any_number_of_taps(max_length, taps):
    u, k, d = inputs(max_length, taps)
    got, _ = steps(u, d, state_of(k, max_length))
    assert error(got, naive.fft_conv(u, k, d)) < 3e-6


def test_rows_of_different_prompts_with_pauses_are_exact():
    """Every row counts from its own prompt, and a row that pauses falls behind the others."""
    u, k, d = inputs(180, 180)
    lengths = np.array([5, 31, 20])
    prompt = np.arange(31)[None, :] < lengths[:, None]
    _, state = fft_conv(
        u[:, :31], k, d, initial_state=state_of(k, ROOM), mask=prompt, return_state=True
    )
    pauses = rng(1).random((BATCH, 149)) < np.array([[0.0], [0.3], [0.6]])
    got, _ = steps(u[:, 31:], d, state, ~pauses)
    expected = naive.fft_conv(u, k, d, mask=np.concatenate([prompt, ~pauses], axis=1))
    assert error(got, expected[:, 31:]) < 3e-6


def test_a_row_that_pauses_at_the_end_of_its_block_passes_it_on_once():
    u, k, d = inputs(40, 40)
    mask = np.ones((BATCH, 40), bool)
    mask[0, 16:18] = False  # While the block of the second row ends, and its own has ended.
    mask[1, 3] = mask[2, 5] = mask[2, 9] = False
    got, _ = steps(u, d, state_of(k, ROOM), mask)
    assert error(got, naive.fft_conv(u, k, d, mask=mask)) < 3e-6


def test_chunks_and_steps_by_turns():
    u, k, d = inputs(150, 150)
    state, outputs, start = state_of(k, ROOM), [], 0
    for chunk, single in ((10, 20), (1, 0), (50, 19), (33, 17)):
        y, state = fft_conv(
            u[:, start : start + chunk], None, d, initial_state=state, return_state=True
        )
        start += chunk
        more, state = steps(u[:, start : start + single], d, state) if single else (None, state)
        outputs += [backend.to_numpy(y)] + ([] if more is None else [more])
        start += single
    assert error(np.concatenate(outputs, axis=1), naive.fft_conv(u, k, d)) < 3e-6


def test_a_row_that_begins_anew_forgets():
    """A layer empties a row by setting its length to 0."""
    u, k, d = inputs(120, 120)
    _, state = steps(u[:, :50], d, state_of(k, ROOM))
    length = backend.to_numpy(state["length"]) * np.array([1, 0, 1], "int32")
    state = {**state, "length": ops.convert_to_tensor(length)}
    got, _ = steps(u[:, 50:], d, state)
    expected = naive.fft_conv(u, k, d)[:, 50:]
    expected[1] = naive.fft_conv(u[1:2, 50:], k, d)[0]
    assert error(got, expected) < 3e-6


def test_a_filter_that_is_given_replaces_the_one_that_is_held():
    u, k, d = inputs(60, 60)
    other = normal(rng(2), 60, WIDTH)
    _, state = steps(u[:, :20], d, state_of(k, ROOM))
    y, state = fft_conv(u[:, 20:21], other, d, initial_state=state, return_state=True)
    got, _ = steps(u[:, 21:], d, state)
    got = np.concatenate([backend.to_numpy(y), got], axis=1)
    assert error(got, naive.fft_conv(u, other, d)[:, 20:]) < 3e-6


def test_a_compiled_step_is_traced_once_and_nan_past_the_capacity():
    u, k, d = inputs(43, 43)
    step, count = compiled(lambda u, state: fft_conv(u, None, d, initial_state=state,
                                                     return_state=True))  # fmt: skip
    state, outputs = state_of(k, 40), []
    for t in range(43):
        y, state = step(ops.convert_to_tensor(u[:, t : t + 1]), state)
        outputs.append(backend.to_numpy(y))
    got = np.concatenate(outputs, axis=1)
    assert len(count) == 1
    assert error(got[:, :40], naive.fft_conv(u, k, d)[:, :40]) < 3e-6
    assert np.isnan(got[:, 40:]).all()


def test_compiled_and_eager_steps_by_turns():
    u, k, d = inputs(50, 50)
    step = backend.compile(lambda u, state: fft_conv(u, None, d, initial_state=state,
                                                     return_state=True))  # fmt: skip
    state, outputs = state_of(k, 50), []
    for t in range(50):
        run = step if 10 <= t < 21 else (
            lambda u, state: fft_conv(u, None, d, initial_state=state, return_state=True)
        )  # fmt: skip
        y, state = run(ops.convert_to_tensor(u[:, t : t + 1]), state)
        outputs.append(backend.to_numpy(y))
    assert error(np.concatenate(outputs, axis=1), naive.fft_conv(u, k, d)) < 3e-6


@trains
def test_gradients_flow_through_steps():
    u, k, d = inputs(40, 40)
    slope = normal(rng(3), *u.shape)

    def run(u, k, d):
        state, outputs = state_of(k, 40), []
        y, state = fft_conv(u[:, :3], k, d, initial_state=state, return_state=True)
        outputs.append(y)
        for t in range(3, 40):
            y, state = fft_conv(u[:, t : t + 1], None, d, initial_state=state, return_state=True)
            outputs.append(y)
        return ops.concatenate(outputs, axis=1)

    if backend.name() == "jax":  # Compiled whole, 37 steps take a minute to compile.
        total = backend.value_and_grad(lambda *x: ops.sum(run(*x) * slope))
        found = dict(zip("ukd", total(*(ops.convert_to_tensor(x) for x in (u, k, d)))[1],
                         strict=True))  # fmt: skip
    else:
        found = gradients(run, "ukd", (u, k, d), slope)
        assert error(found.pop("output"), naive.fft_conv(u, k, d)) < 3e-6
    expected = naive.gradients(u, k, d, slope)
    for name in "ukd":
        assert error(found[name], expected[name]) < 5e-6, name


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision(dtype):
    u, k, d = inputs(70, 70)
    state = fft_conv_state(BATCH, WIDTH, 70, dtype=dtype, k=k)
    outputs = []
    for t in range(70):
        step = ops.cast(u[:, t : t + 1], dtype)
        y, state = fft_conv(step, None, d, initial_state=state, return_state=True)
        outputs.append(ops.cast(y, "float32"))
    assert dtype in str(y.dtype) and dtype in str(state["input"].dtype)
    assert "float32" in str(state["soon"].dtype)
    assert error(ops.concatenate(outputs, axis=1), naive.fft_conv(u, k, d)) < 2e-2


def work(monkeypatch, prompt, time):
    """What each of `time` eager steps transforms and writes, in positions.

    The convolutions are lists of (inputs, outputs). What is written are the tensors of the state
    that are not those of the state before.
    """
    u, k, d = (x[:1] if x.ndim == 3 else x for x in inputs(prompt + time, prompt + time))
    state = fft_conv_state(1, WIDTH, prompt + time, k=k)
    if prompt:
        _, state = fft_conv(u[:, :prompt], k, d, initial_state=state, return_state=True)
    calls, written, windowed = [], [], parallel.windowed

    def counted(u, k, start, length, *rest):
        calls[-1].append((int(u.shape[1]), length))
        return windowed(u, k, start, length, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(parallel, "windowed", counted)
        for t in range(prompt, prompt + time):
            calls.append([])
            _, new = fft_conv(u[:, t : t + 1], None, d, initial_state=state, return_state=True)
            pairs = zip(tree.flatten(new), tree.flatten(state), strict=True)
            written.append(sum(int(x.shape[1]) for x, was in pairs if x is not was and x.ndim == 3))
            state = new
    return calls, written


@pytest.mark.parametrize("prompt", (0, 77))
def test_the_work_of_steps_is_that_of_the_blocks(monkeypatch, prompt):
    """A block of L positions is made once in 2 L: log2(T) / 2 positions transformed for each."""
    time = 512
    calls, _ = work(monkeypatch, prompt, time)
    if prompt:  # What it gives is made once.
        room = prompt + time
        sizes = relaxed.block_sizes(room)
        assert sorted(calls[0]) == [(size, min(size, room - size)) for size in sizes]
    else:
        assert calls[0] == []
    for t, blocks in enumerate(calls[1:], start=prompt + 2):  # The number of positions by then.
        size = t & -t
        ends = size >= relaxed.BASE and t < prompt + time
        assert [inputs for inputs, _ in blocks] == ([size] if ends else []), t
    elements = sum(size for blocks in calls[1:] for size, _ in blocks)
    assert elements <= time * np.log2(time / relaxed.BASE) / 2 + time


def test_work_a_position_grows_with_the_logarithm(monkeypatch):
    transformed, wrote = {}, {}
    for time in (128, 1024):
        calls, written = work(monkeypatch, 0, time)
        transformed[time] = sum(size for blocks in calls for size, _ in blocks) / time
        wrote[time] = sum(written) / time
    assert transformed[1024] - transformed[128] <= np.log2(1024 / 128) / 2 + 0.5
    # Each size writes at most twice as many positions of blocks, and of flows, as it has.
    assert wrote[1024] - wrote[128] <= 2 * np.log2(1024 / 128) + 0.5


@pytest.mark.skipif(backend.name() != "jax", reason="only jax takes a state that is given up")
def test_a_compiled_step_copies_no_block_of_a_state_that_is_given_up():
    u, k, d = inputs(1, 1024)
    state = state_of(k, 1024)
    run = backend.compile(_step, donate=(3,))
    text = run.lower(u, np.ones((BATCH, 1), bool), d, state).compile().as_text()
    outside = text[text.index("\nENTRY ") :]
    assert " conditional(" not in text  # Its branches copy what they leave as it is.
    size = f"{BATCH},512,{WIDTH}"
    assert size in outside  # There is such a block, and nothing makes another outside a change.
    makes = [line for line in outside.splitlines() if re.search(rf"= f32\[{size}\]", line)]
    assert [line for line in makes if not re.search(r"(parameter|get-tuple-element)\(", line)] == []


@pytest.mark.parametrize(
    "run, words",
    (
        (lambda u, k, d: fft_conv(u, None, d), "k=None"),
        (lambda u, k, d: fft_conv(u, None, d, initial_state=fft_conv_state(3, 2, 9)), "k=None"),
        (lambda u, k, d: fft_conv_state(3, 2, k=k), "Give max_length"),
        (lambda u, k, d: fft_conv(u, k, initial_state=cut(state_of(k, 9))), "expected a dict with"),
        (lambda u, k, d: fft_conv_state(3, 3, 9, k=k), "divisor of the width D = 3"),
    ),
)
def test_bad_calls_are_refused(run, words):
    with pytest.raises(ValueError) as raised:
        run(*inputs(5, 5))
    assert words in str(raised.value)
