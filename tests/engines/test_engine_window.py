"""Attention with a window as its past: long chunks, many steps, constant size, refusals."""

import numpy as np
import pytest
from engines.support import error, fast, gradients, mask_of, normal, rng, segments_of, trains
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines.attention import attention, attention_state, naive

BATCH, HEADS, GROUPS, WIDTH = 2, 2, 1, 4


def inputs(time):
    g = rng(1, time)
    shapes = ((HEADS, WIDTH), (GROUPS, WIDTH), (GROUPS, WIDTH))
    return [normal(g, BATCH, time, *shape) for shape in shapes]


def state(window):
    return attention_state(BATCH, GROUPS, WIDTH, window=window)


def in_chunks(tensors, cuts, window, **options):
    """Outputs of consecutive chunks, joined, and the state after the last."""

    def run(*tensors):
        outputs, past = [], state(window)
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            chunk = [x[:, a:b] for x in tensors]
            here = {key: x[:, a:b] for key, x in options.items()}
            out, past = attention(
                *chunk, window=window, initial_state=past, return_state=True, **here
            )
            outputs.append(out)
        return ops.concatenate(outputs, axis=1), past

    return fast(run)(*(ops.convert_to_tensor(x) for x in tensors))


@pytest.mark.parametrize("kind", (None, "interior", "segments"))
def test_long_chunks_after_a_window(kind):
    """Past the length from which a chunk is computed in blocks."""
    time, window = 2000, 17
    tensors, options = inputs(time), {}
    if kind == "interior":
        options["mask"] = mask_of(rng(2), BATCH, time, "interior")
    if kind == "segments":
        ids = segments_of(rng(3), BATCH, time)
        ids[:, 590:620] = ids[:, 590:591]
        options["segment_ids"] = np.maximum.accumulate(ids, axis=1)
    got, after = in_chunks(tensors, (0, 600, 1999, 2000), window, **options)
    assert error(got, naive.attention(*tensors, window=window, **options)) < 3e-6
    assert after["key"].shape[1] == window - 1


@trains
def test_gradients_of_long_chunks():
    tensors = inputs(1500)
    slope = normal(rng(4), BATCH, 1500, HEADS, WIDTH)
    found = gradients(lambda *x: in_chunks(x, (0, 300, 1500), 9)[0], "qkv", tensors, slope)
    expected = naive.gradients(*tensors, slope, window=9)
    for name in "qkv":
        assert error(found[name], expected[name]) < 5e-6, name


def test_a_window_state_holds_the_last_positions_newest_last():
    _, k, v = tensors = inputs(11)
    mask = np.ones((BATCH, 11), bool)
    mask[1, 2:] = False
    _, after = in_chunks(tensors, (0, 4, 11), 6, mask=mask)
    np.testing.assert_array_equal(backend.to_numpy(after["length"]), [11, 2])
    key = backend.to_numpy(after["key"])
    np.testing.assert_array_equal(key[0], k[0, 6:])
    np.testing.assert_array_equal(key[1, 3:], k[1, :2])
    assert not key[1, :3].any()
    np.testing.assert_array_equal(backend.to_numpy(after["value"])[0], v[0, 6:])


def test_steps_cost_the_window_and_not_the_past():
    """After 64k positions a state has the size, and gives the outputs, of its window alone."""
    q, k, v = inputs(9)
    far = {**state(5), "length": ops.full((BATCH,), 65536, "int32")}
    far["key"], far["value"] = ops.convert_to_tensor(k[:, :4]), ops.convert_to_tensor(v[:, :4])
    outputs = []
    for t in range(4, 9):
        step = [x[:, t : t + 1] for x in (q, k, v)]
        out, far = attention(*step, window=5, initial_state=far, return_state=True)
        outputs.append(backend.to_numpy(out))
    expected = naive.attention(q, k, v, window=5)[:, 4:]
    assert error(np.concatenate(outputs, axis=1), expected) < 3e-6
    assert far["key"].shape == (BATCH, 4, GROUPS, WIDTH)
    np.testing.assert_array_equal(backend.to_numpy(far["length"]), [65541, 65541])


def test_padding_of_any_value_changes_no_window():
    tensors = inputs(12)
    mask = mask_of(rng(5), BATCH, 12, "interior")
    bad = [np.where(mask[:, :, None, None], x, np.nan) for x in tensors]
    got, after = in_chunks(bad, (0, 5, 6, 12), 4, mask=mask)
    assert error(got, naive.attention(*tensors, window=4, mask=mask)) < 3e-6
    assert np.isfinite(backend.to_numpy(after["key"])).all()


@pytest.mark.parametrize("window", (None, 7))
def test_a_window_longer_than_the_state_is_refused(window):
    with pytest.raises(ValueError, match=r"a window of at most 6\. Make the state"):
        attention(*inputs(3), window=window, initial_state=state(6))


@pytest.mark.parametrize(
    "options, words",
    (({"window": 0}, "window=0"), ({"window": 3, "max_length": 4}, "drop max_length")),
)
def test_bad_window_states_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        attention_state(1, 1, 4, **options)
