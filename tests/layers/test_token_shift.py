"""`TokenShift` against the plainest loop."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.layers.common import TokenShift

MASK = np.array([[1, 0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 1, 1, 1], [0] * 7], bool)
IDS = np.array([[1, 2, 1, 2, 2, 2, 3], [5, 5, 5, 6, 6, 5, 5], [1] * 7])


def _loop(x, state, mask, ids):
    y, last = np.zeros_like(x), state.copy()
    for b in range(len(x)):
        seen = None
        for t in range(x.shape[1]):
            if not mask[b, t]:
                continue
            if seen is None or ids[b, t] == seen:
                y[b, t] = last[b]
            seen, last[b] = ids[b, t], x[b, t]
    return y, last


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("time", [1, 7])
def test_it_equals_the_loop(masked, segmented, time, rng):
    x = rng.normal(size=(3, time, 4)).astype("float32")
    state = rng.normal(size=(3, 4)).astype("float32")
    mask, ids = MASK[:, :time], IDS[:, :time]
    options = {"mask": mask} if masked else {}
    options |= {"segment_ids": ids} if segmented else {}
    expected, last = _loop(x, state, mask if masked else mask | True, ids if segmented else ids * 0)
    if masked:
        x = np.where(mask[:, :, None], x, np.nan)  # What stands at padding is not read.
    y, after = TokenShift()(x, state=state, return_state=True, **options)
    real = mask if masked else mask | True
    np.testing.assert_array_equal(ek.backend.to_numpy(y)[real], expected[real])
    np.testing.assert_array_equal(ek.backend.to_numpy(after), last)
    assert np.isfinite(ek.backend.to_numpy(y)).all()
