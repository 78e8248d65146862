"""The attention engine against its naive form: outputs, gradients, masks, segments, dtypes."""

import numpy as np
import pytest
from engines.support import (
    LENGTHS,
    compiled,
    error,
    fast,
    finite_differences,
    gradients,
    mask_of,
    normal,
    rng,
    segments_of,
    trains,
)
from keras import ops

from ember_keras import backend
from ember_keras.ops.engines.attention import attention, naive, parallel

OPTIONS = {
    "causal": {},
    "bidirectional": {"causal": False},
    "window": {"window": 7},
    "window of one": {"window": 1},
    "bidirectional window": {"window": 7, "causal": False},
    "scale": {"scale": 0.3},
    "segments": {"segment_ids": True},
    "bidirectional segments": {"segment_ids": True, "causal": False},
    "left": {"mask": "left"},
    "right": {"mask": "right"},
    "both": {"mask": "both"},
    "interior": {"mask": "interior"},
    "bidirectional interior": {"mask": "interior", "causal": False},
    "interior window": {"mask": "interior", "window": 5},
    "interior segments": {"mask": "interior", "segment_ids": True},
    "everything": {"mask": "interior", "segment_ids": True, "window": 5, "scale": 0.5},
    "everything, bidirectional": {
        "mask": "interior",
        "segment_ids": True,
        "window": 5,
        "causal": False,
    },
}


def inputs(time, heads=4, groups=2, width=8, value_width=6, batch=2, seed=0):
    g = rng(seed, time)
    q, k = normal(g, batch, time, heads, width), normal(g, batch, time, groups, width)
    return q, k, normal(g, batch, time, groups, value_width)


def options_of(name, batch, time):
    g = rng(7, time)
    options = dict(OPTIONS[name])
    if "mask" in options:
        options["mask"] = mask_of(g, batch, time, options["mask"])
    if "segment_ids" in options:
        options["segment_ids"] = segments_of(g, batch, time)
    return options


@pytest.fixture
def small_chunks(monkeypatch):
    """Make the forms for long sequences run on short ones."""
    monkeypatch.setattr(parallel, "FULL", 512)


CASES = [(63, name) for name in OPTIONS] + [
    (time, name) for time in LENGTHS if time != 63 for name in ("causal", "everything")
]
LONG = ("causal", "bidirectional", "window", "bidirectional window", "everything", "segments",
        "interior", "bidirectional segments", "interior window")  # fmt: skip


@pytest.mark.parametrize("time, name", CASES)
def test_output_and_gradients(time, name):
    check(time, name)


@pytest.mark.parametrize("name", LONG)
def test_output_and_gradients_of_long_forms(name, small_chunks):
    check(300, name)


def check(time, name):
    """Outputs, and gradients by name where the backend trains, are those of the naive form."""
    q, k, v = inputs(time)
    options = options_of(name, 2, time)
    expected = naive.attention(q, k, v, **options)
    if not backend.capabilities().trains:
        assert error(attention(q, k, v, **options), expected) < 2e-6
        return
    slope = normal(rng(3), 2, time, 4, 6)
    found = gradients(lambda *x: attention(*x, **options), "qkv", (q, k, v), slope)
    assert error(found.pop("output"), expected) < 2e-6
    expected = naive.gradients(q, k, v, slope, **options)
    for each in "qkv":
        # T = 1 gives gradients of q and k that are exactly zero.
        scale = max(np.abs(expected[each]).max(), 1.0)
        difference = np.abs(backend.to_numpy(found[each]) - expected[each]).max()
        assert difference < 5e-6 * scale, each


@pytest.mark.parametrize("name", ("causal", "window"))
def test_output_at_2000(name):
    q, k, v = inputs(2000, heads=2, groups=1, batch=1)
    options = options_of(name, 1, 2000)
    got = fast(lambda *x: attention(*x, **options))(q, k, v)
    assert error(got, naive.attention(q, k, v, **options)) < 2e-6


@pytest.mark.parametrize("heads, groups", ((1, 1), (4, 4), (4, 1)))
def test_grouped_heads(heads, groups):
    q, k, v = inputs(33, heads, groups)
    assert error(attention(q, k, v), naive.attention(q, k, v)) < 2e-6


def test_cross_attention():
    q, _, _ = inputs(10)
    _, k, v = inputs(33)
    mask = mask_of(rng(1), 2, 33, "interior")
    expected = naive.attention(q, k, v, mask=mask, causal=False)
    assert error(attention(q, k, v, mask=mask, causal=False), expected) < 2e-6


@pytest.mark.parametrize("name", ("causal", "everything"))
def test_naive_gradients_are_finite_differences(name):
    tensors = dict(zip("qkv", (x.astype("float64") for x in inputs(9)), strict=True))
    options = options_of(name, 2, 9)
    slope = rng(4).normal(size=(2, 9, 4, 6))
    analytic = naive.gradients(**tensors, cotangent=slope, **options)
    for each, x in tensors.items():
        positions = [tuple(rng(5, at).integers(0, x.shape)) for at in range(20)]

        def loss(moved, each=each):
            return np.sum(slope * naive.attention(**{**tensors, each: moved}, **options))

        numeric = finite_differences(loss, x, positions)
        np.testing.assert_allclose(
            numeric, [analytic[each][p] for p in positions], rtol=1e-6, atol=1e-8
        )


@trains
def test_fully_masked_rows_are_zero_with_finite_gradients():
    q, k, v = inputs(12)
    mask = np.ones((2, 12), bool)
    mask[0] = False
    for causal in (True, False):
        out = backend.to_numpy(attention(q, k, v, mask=mask, causal=causal))
        assert np.all(out[0] == 0) and np.isfinite(out).all()
        options = {"mask": mask, "causal": causal}
        found = gradients(lambda *x: attention(*x, **options), "qkv", (q, k, v), out)  # noqa: B023
        for each in found.values():
            each = backend.to_numpy(each)
            assert np.isfinite(each).all() and np.all(each[0] == 0)


def test_padding_of_any_value_changes_nothing():
    q, k, v = inputs(30)
    mask = mask_of(rng(2), 2, 30, "interior")
    bad = [np.where(mask[:, :, None, None], x, np.nan) for x in (q, k, v)]
    for options in ({}, {"window": 4}):
        got = attention(*bad, mask=mask, **options)
        assert error(got, naive.attention(q, k, v, mask=mask, **options)) < 2e-6


def test_the_future_changes_nothing():
    q, k, v = inputs(40)
    before = backend.to_numpy(attention(q, k, v))[:, :20]
    q[:, 20:], k[:, 20:], v[:, 20:] = 9.0, -9.0, 9.0
    after = backend.to_numpy(attention(q, k, v))[:, :20]
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_packed_segments_equal_separate_sequences():
    q, k, v = inputs(30, batch=1)
    ids = np.array([[0] * 11 + [1] * 1 + [0] * 18])
    packed = backend.to_numpy(attention(q, k, v, segment_ids=ids))
    for a, b in ((0, 11), (11, 12), (12, 30)):
        alone = backend.to_numpy(attention(q[:, a:b], k[:, a:b], v[:, a:b]))
        np.testing.assert_allclose(packed[:, a:b], alone, atol=2e-6)


@pytest.mark.parametrize("dtype, tolerance", (("float16", 2e-3), ("bfloat16", 2e-2)))
def test_half_precision(dtype, tolerance):
    q, k, v = inputs(63)
    got = attention(*(ops.cast(x, dtype) for x in (q, k, v)))
    assert str(got.dtype).endswith(dtype) or dtype in str(got.dtype)
    got = ops.cast(got, "float32")
    assert error(got, naive.attention(q, k, v)) < tolerance


def test_large_scores_stay_finite():
    q, k, v = inputs(63)
    assert error(attention(100 * q, 100 * k, v), naive.attention(100 * q, 100 * k, v)) < 1e-3


@pytest.mark.parametrize("time, name", ((63, "everything"), (300, "causal"), (300, "window")))
def test_compiled_equals_eager(time, name, small_chunks):
    q, k, v = inputs(time)
    options = options_of(name, 2, time)
    function, count = compiled(lambda *x: attention(*x, **options))
    tensors = [ops.convert_to_tensor(x) for x in (q, k, v)]
    for _ in range(3):
        got = function(*tensors)
    assert len(count) == 1
    assert error(got, naive.attention(q, k, v, **options)) < 2e-6


@pytest.mark.parametrize(
    "change, words",
    (
        ({"q": np.ones((2, 5, 8), "float32")}, "expected (B, T, H, K)"),
        ({"q": np.ones((2, 5, 3, 8), "float32")}, "groups that divide"),
        ({"q": np.ones((2, 6, 4, 8), "float32")}, "equal lengths"),
        ({"q": np.ones((2, 5, 4, 7), "float32")}, "width K"),
        ({"q": np.ones((2, 0, 4, 8), "float32")}, "at least one"),
        ({"v": np.ones((2, 6, 2, 6), "float32")}, "length S"),
        ({"window": 0}, "window=0"),
        ({"causal": False, "return_state": True}, "Drop the state"),
        ({"mask": np.ones((2, 6), bool)}, "mask of shape"),
        ({"segment_ids": np.ones((5,), "int32")}, "segment_ids of shape"),
        ({"initial_state": {"input": 0}}, "attention_state"),
    ),
)
def test_bad_input_is_refused(change, words):
    q, k, v = inputs(5)
    with pytest.raises(ValueError) as raised:
        attention(**{"q": q, "k": k, "v": v, **change})
    assert words in str(raised.value)


def test_bad_dtypes_are_refused():
    q, k, v = inputs(5)
    with pytest.raises(TypeError, match="int32"):
        attention(q.astype("int32"), k, v)
    with pytest.raises(TypeError, match="one dtype"):
        attention(q.astype("float16"), k, v)
