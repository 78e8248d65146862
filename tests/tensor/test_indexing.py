"""Indexing is numpy's on every backend."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember_keras import ops

X = np.arange(3 * 4 * 5, dtype="float32").reshape(3, 4, 5)
CASES = {
    "integer": np.s_[1],
    "negative": np.s_[-1, 2],
    "all integers": np.s_[1, 2, 3],
    "slice": np.s_[1:, ::2],
    "negative step": np.s_[::-1, 3:0:-2],
    "empty": np.s_[2:1],
    "past the end": np.s_[-10:10, 4:],
    "ellipsis": np.s_[..., 0],
    "only ellipsis": np.s_[...],
    "no index": (),
    "none": np.s_[None, :, None, 1],
    "one array": np.s_[[0, 2]],
    "array in the middle": np.s_[:, np.array([3, -4, 0])],
    "array of two dimensions": np.s_[:, :, np.array([[0, 1], [2, -1]])],
    "two arrays": np.s_[[0, 1], [1, 2]],
    "arrays that broadcast": np.s_[np.array([[0], [1]]), :, [0, 2]],
    "arrays in the middle": np.s_[:, [0, 1], [2, 3]],
    "array beside integer": np.s_[0, :, [1, 2]],
    "integer beside array": np.s_[:, 1, [0, 2]],
    "array, none and slice": np.s_[None, [0, 1], 1:3],
    "empty array": np.s_[[]],
    "mask": X > 30,
    "mask of one dimension": np.s_[np.array([True, False, True])],
    "mask in the middle": np.s_[:, np.array([True, False, True, True]), 1:],
    "mask of two dimensions": np.s_[X[:, :, 0] > 20],
    "mask beside array": np.s_[np.array([True, False, True]), [0, 1]],
    "mask with nothing": X > 1000,
}


def as_backend(key):
    """The key with every array as an EmberTensor."""
    if isinstance(key, tuple):
        return tuple(as_backend(item) for item in key)
    return ops.asarray(key) if isinstance(key, np.ndarray) else key


@pytest.mark.parametrize("key", CASES.values(), ids=CASES)
def test_as_numpy(key):
    expected = X[key]
    for form in (key, as_backend(key)):
        result = ops.asarray(X)[form]
        assert result.shape == expected.shape and result.dtype == "float32"
        np.testing.assert_array_equal(result.numpy(), expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_basic_key(data):
    bound = st.one_of(st.none(), st.integers(-7, 7))
    step = st.sampled_from([None, 1, 2, -1, -3])
    item = st.one_of(st.integers(-3, 2), st.builds(slice, bound, bound, step), st.none())
    key = data.draw(st.lists(item, max_size=4).filter(lambda k: sum(i is not None for i in k) <= 3))
    if data.draw(st.booleans()):
        key.insert(data.draw(st.integers(0, len(key))), Ellipsis)
    expected = X[tuple(key)]
    result = ops.asarray(X)[tuple(key)]
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (5, "axis 0 of size 3"),
        (np.s_[0, -5], "axis 1 of size 4"),
        ([0, 3], "size 3"),
        (np.s_[0, 0, 0, 0], "3 dimensions"),
        (np.s_[..., ...], "at most once"),
        (True, "single bool"),
        (1.0, "Expected integers"),
        ("a", "Expected integers"),
        (np.array([1.5]), "Cast a float index"),
        (np.array([True, False]), "mask of shape"),
    ],
)
def test_refusals(key, message):
    with pytest.raises(IndexError, match=message):
        ops.asarray(X)[key]


def test_zero_step():
    with pytest.raises(ValueError, match="step 0"):
        ops.asarray(X)[::0]


def test_tensor_bounds_of_slices_and_tensor_integers():
    start = ops.asarray(1)
    np.testing.assert_array_equal(ops.asarray(X)[start:].numpy(), X[1:])
    np.testing.assert_array_equal(ops.asarray(X)[start].numpy(), X[1])
    np.testing.assert_array_equal(ops.asarray(X)[:, start, 2].numpy(), X[:, 1, 2])
