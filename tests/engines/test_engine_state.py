"""The past: any split equals the whole, steps too; padding, segments, overflow, one trace."""

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
from ember_keras.ops.engines.attention import attention, attention_state
from ember_keras.ops.engines.attention import naive as naive_attention
from ember_keras.ops.engines.fft_conv import fft_conv, fft_conv_state, taps_needed
from ember_keras.ops.engines.fft_conv import naive as naive_fft_conv

BATCH, TIME, HEADS, GROUPS, WIDTH = 2, 23, 4, 2, 6
CHUNKS = (0, 9, 10, 11, 23)


class Attention:
    """How the shared tests call attention."""

    naive = staticmethod(naive_attention.attention)
    buffers = ("key", "value")
    options = {"window": 6}

    @staticmethod
    def inputs():
        g = rng(1)
        shapes = ((HEADS, WIDTH), (GROUPS, WIDTH), (GROUPS, WIDTH))
        return [normal(g, BATCH, TIME, *shape) for shape in shapes]

    @staticmethod
    def state(max_length=None):
        return attention_state(BATCH, GROUPS, WIDTH, WIDTH, max_length)

    def run(self, tensors, **options):
        return attention(*tensors, **self.options, **options)

    def reference(self, tensors, **options):
        return self.naive(*tensors, **self.options, **options)


class WindowAttention(Attention):
    """Attention over the window of its last keys and values."""

    buffers = ()

    @staticmethod
    def state(max_length=None):
        return attention_state(BATCH, GROUPS, WIDTH, WIDTH, window=6)


class OneSelf(WindowAttention):
    """A window of the position itself, whose past is empty."""

    options = {"window": 1}

    @staticmethod
    def state(max_length=None):
        return attention_state(BATCH, GROUPS, WIDTH, WIDTH, window=1)


class LongConvolution(Attention):
    """How the shared tests call the convolution with a history of all inputs."""

    naive = staticmethod(naive_fft_conv.fft_conv)
    buffers = ("input",)
    options = {"k": normal(rng(2), 60, WIDTH), "d": normal(rng(3), WIDTH)}

    @staticmethod
    def inputs():
        return [normal(rng(4), BATCH, TIME, WIDTH)]

    @staticmethod
    def state(max_length=None):
        return fft_conv_state(BATCH, WIDTH, max_length)

    def run(self, tensors, **options):
        return fft_conv(*tensors, **self.options, **options)


class ShortConvolution(LongConvolution):
    """A filter of few taps over the history of all inputs."""

    options = {"k": normal(rng(5), 4, WIDTH)}


class WindowConvolution(LongConvolution):
    """A finite filter, by FFT, over the window of its last inputs."""

    options = {"k": normal(rng(6), 19, WIDTH)}
    buffers = ()

    @staticmethod
    def state(max_length=None):
        return fft_conv_state(BATCH, WIDTH, taps=19)


class OneTap(WindowConvolution):
    """A filter of one tap, whose window is empty."""

    options = {"k": normal(rng(7), 1, WIDTH)}

    @staticmethod
    def state(max_length=None):
        return fft_conv_state(BATCH, WIDTH, taps=1)


ENGINES = {
    "attention": Attention(),
    "window attention": WindowAttention(),
    "one self": OneSelf(),
    "long": LongConvolution(),
    "short": ShortConvolution(),
    "window": WindowConvolution(),
    "one tap": OneTap(),
}


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


def split(engine, tensors, cuts, state, mask=None, segment_ids=None):
    """Outputs of consecutive chunks, joined, and the state after the last."""

    def run(*tensors):
        outputs, past = [], state
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            options = {"mask": mask, "segment_ids": segment_ids}
            options = {key: None if x is None else x[:, a:b] for key, x in options.items()}
            chunk = [x[:, a:b] for x in tensors]
            out, past = engine.run(chunk, initial_state=past, return_state=True, **options)
            outputs.append(out)
        return ops.concatenate(outputs, axis=1), past

    return fast(run)(*(ops.convert_to_tensor(x) for x in tensors))


def check_state(engine, state, expected):
    for name in engine.buffers:
        got = backend.to_numpy(state[name])
        held = expected[name].shape[1]
        assert error(got[:, :held], expected[name]) < 1e-6
        assert not got[:, held:].any()
    if engine.buffers:
        np.testing.assert_array_equal(backend.to_numpy(state["length"]), expected["length"])


@pytest.mark.parametrize("max_length", (None, TIME))
def test_chunks_equal_the_whole(engine, max_length):
    tensors = engine.inputs()
    expected, after = engine.reference(tensors, return_state=True)
    got, state = split(engine, tensors, CHUNKS, engine.state(max_length))
    assert error(got, expected) < 3e-6
    check_state(engine, state, after)


def test_steps_equal_the_whole(engine):
    tensors = engine.inputs()
    expected, after = engine.reference(tensors, return_state=True)
    got, state = split(engine, tensors, range(TIME + 1), engine.state(30))
    assert error(got, expected) < 3e-6
    check_state(engine, state, after)


def test_the_first_chunk_needs_no_state(engine):
    tensors = engine.inputs()
    expected, after = engine.reference(tensors, return_state=True)
    got, state = split(engine, tensors, (0, 11, TIME), None)
    assert error(got, expected) < 3e-6
    if "window" not in engine.state():
        check_state(engine, state, after)


@pytest.mark.parametrize("kind", ("left", "right", "interior"))
def test_padded_chunks_equal_the_whole(engine, kind):
    tensors, mask = engine.inputs(), mask_of(rng(8), BATCH, TIME, kind)
    expected, after = engine.reference(tensors, mask=mask, return_state=True)
    got, state = split(engine, tensors, CHUNKS, engine.state(30), mask=mask)
    assert error(got, expected) < 3e-6
    check_state(engine, state, after)


def test_right_padded_prefill_leaves_the_state_of_the_real_tokens(engine):
    tensors = engine.inputs()
    mask = np.arange(TIME)[None, :] < np.array([[15], [15]])
    start = engine.state(30)

    def prefill(*x, **options):
        return engine.run(x, initial_state=start, return_state=True, **options)[1]

    padded = fast(lambda *x: prefill(*x, mask=mask))(*tensors)
    alone = fast(prefill)(*(x[:, :15] for x in tensors))
    for name in alone:
        np.testing.assert_allclose(
            backend.to_numpy(padded[name]), backend.to_numpy(alone[name]), atol=1e-6
        )


@pytest.mark.parametrize("masked", (False, True))
def test_segments_after_a_past(engine, masked):
    """The past belongs to the first run of the chunk, and the state after it is the last run's."""
    tensors, g = engine.inputs(), rng(9)
    cut = 7
    ids = segments_of(g, BATCH, TIME)
    ids[:, : cut + 1] = ids[:, cut : cut + 1]  # the cut is inside a segment
    ids[0, cut + 4 :] += 2
    mask = mask_of(g, BATCH, TIME, "interior") if masked else None
    expected, after = engine.reference(tensors, segment_ids=ids, mask=mask, return_state=True)
    got, state = split(engine, tensors, (0, cut, TIME), engine.state(40), mask, ids)
    assert error(got, expected) < 3e-6
    check_state(engine, state, after)
    more = [x[:, :5] for x in tensors]
    with_more = [np.concatenate([x, y], 1) for x, y in zip(tensors, more, strict=True)]
    ids = np.concatenate([ids, ids[:, -1:].repeat(5, 1)], 1)
    if mask is None:
        expected = engine.reference(with_more, segment_ids=ids)
        got, _ = split(engine, more, (0, 4, 5), state)
        assert error(got, expected[:, TIME:]) < 3e-6


def test_a_full_state_is_refused(engine):
    tensors = engine.inputs()
    if "window" in engine.state():
        pytest.skip("a window of inputs never overflows")
    _, state = engine.run([x[:, :9] for x in tensors], initial_state=engine.state(10),
                          return_state=True)  # fmt: skip
    with pytest.raises(ValueError, match="max_length=10, holds 9 positions, and got 2 more"):
        engine.run([x[:, :2] for x in tensors], initial_state=state)
    with pytest.raises(ValueError, match="larger max_length"):
        engine.run([x[:, :11] for x in tensors], initial_state=state)
    mask = np.array([[True, False]] * BATCH)
    out = engine.run([x[:, :2] for x in tensors], initial_state=state, mask=mask)
    assert np.isfinite(backend.to_numpy(out)).all()


def test_traced_overflow_is_nan_and_a_step_is_traced_once(engine):
    tensors = engine.inputs()
    step, count = compiled(lambda state, *x: engine.run(x, initial_state=state, return_state=True))
    state, outputs = engine.state(10), []
    for t in range(13):
        out, state = step(state, *(ops.convert_to_tensor(x[:, t : t + 1]) for x in tensors))
        outputs.append(backend.to_numpy(out))
    assert len(count) == 1
    got = np.concatenate(outputs, axis=1)
    expected = engine.reference([x[:, :13] for x in tensors])
    within = 13 if "window" in engine.state() else 10
    assert error(got[:, :within], expected[:, :within]) < 3e-6
    assert np.isnan(got[:, within:]).all()


@trains
def test_gradients_flow_through_the_state(engine):
    tensors = engine.inputs()
    if engine.options.get("window") == 1:
        pytest.skip("a softmax over one position has no gradient")
    slope = normal(rng(10), *engine.reference(tensors).shape)
    mask = mask_of(rng(11), BATCH, TIME, "interior")
    names = [str(at) for at in range(len(tensors))]
    whole = gradients(lambda *x: engine.run(x, mask=mask), names, tensors, slope)

    def chunks(*x):
        return split(engine, x, CHUNKS, engine.state(40), mask=mask)[0]

    found = gradients(chunks, names, tensors, slope)
    for name in (*names, "output"):
        assert error(found[name], backend.to_numpy(whole[name])) < 5e-6, name


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_half_precision_states(engine, dtype):
    tensors = engine.inputs()
    expected = engine.reference(tensors)
    half = [ops.cast(x, dtype) for x in tensors]
    got, state = split(engine, half, (0, 20, 21, 22, TIME), None)
    assert all(dtype in str(state[name].dtype) for name in engine.buffers)
    assert error(ops.cast(got, "float32"), expected) < 3e-2


def test_taps_needed():
    growing, fixed = fft_conv_state(1, 2), fft_conv_state(1, 2, max_length=9)
    assert taps_needed(5) == 5
    assert taps_needed(5, taps=3) == 3
    assert taps_needed(5, growing) == 5
    assert taps_needed(1, fixed) == 9
    assert taps_needed(7, fft_conv_state(1, 2, taps=4), taps=4) == 4


@pytest.mark.parametrize(
    "arguments, words",
    (
        ({"max_length": 0}, "max_length=0"),
        ({"taps": 0}, "taps=0"),
        ({"taps": 3, "max_length": 5}, "drop max_length"),
    ),
)
def test_bad_states_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        fft_conv_state(1, 2, **arguments)


def test_a_window_too_short_for_the_filter_is_refused():
    u, k = normal(rng(12), 1, 3, 2), normal(rng(13), 9, 2)
    with pytest.raises(ValueError, match="at most 4 taps"):
        fft_conv(u, k, initial_state=fft_conv_state(1, 2, taps=4))
