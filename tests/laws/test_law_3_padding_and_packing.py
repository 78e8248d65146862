"""Law 3: padding never changes a real position; packed sequences equal separate ones."""

import numpy as np
import pytest
from laws import cases
from laws.support import at_real, run, run_chunks

LENGTHS = [9, 4, 1, 7]
PACKED = [c for c in cases.SEQUENCE if not c.summarizes]


def _padded(case, rng, where):
    """Rows of different lengths with padding on the left, the right, or both; and their mask."""
    time = 12
    rows = [case.inputs(rng, 1, length)[0] for length in LENGTHS]
    x = case.inputs(rng, len(rows), time)
    if not case.takes_tokens:
        x *= 5  # What stands at padding must not matter.
    mask = np.zeros((len(rows), time), dtype=bool)
    for i, row in enumerate(rows):
        room = time - len(row)
        start = {"left": room, "right": 0, "both": room // 2}[where]
        x[i, start : start + len(row)] = row
        mask[i, start : start + len(row)] = True
    return rows, x, mask


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_padding_changes_no_real_position(case, rng, assert_close):
    layer = case.build()
    for where in ("left", "right", "both"):
        rows, x, mask = _padded(case, rng, where)
        y = run(layer, x, mask=mask)
        assert np.isfinite(y).all()
        for i, row in enumerate(rows):
            alone = run(layer, row[None])[0]
            real = y[i] if case.summarizes else y[i][mask[i]]
            assert_close(real, alone, name=f"row {i}, padding {where}")


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_positions_masked_in_between_are_not_there(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 1, 9)
    mask = np.array([[False, True, True, False, False, True, False, False, True]])
    y = run(layer, x, mask=mask)
    alone = run(layer, x[:, mask[0]])
    assert_close(y if case.summarizes else at_real(y, mask), alone if case.summarizes else alone[0])


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_a_row_of_padding_alone_stays_finite(case, rng):
    layer = case.build()
    x = case.inputs(rng, 2, 5)
    mask = np.array([[True] * 5, [False] * 5])
    assert np.isfinite(run(layer, x, mask=mask)).all()


@pytest.mark.parametrize("case", **cases.by_id(PACKED))
def test_packed_sequences_equal_separate_ones(case, rng, assert_close):
    layer = case.build()
    lengths = [[4, 2, 7], [9, 4]]
    x = case.inputs(rng, 2, 13)
    ids = np.array([np.repeat(np.arange(len(row)) + 3, row) for row in lengths])
    y = run(layer, x, segment_ids=ids)
    for i, row in enumerate(lengths):
        start = 0
        for length in row:
            part = slice(start, start + length)
            assert_close(y[i, part], run(layer, x[i : i + 1, part])[0], name=f"row {i} at {start}")
            start += length


@pytest.mark.parametrize("case", **cases.by_id(PACKED + cases.NAMED))
def test_packed_sequences_with_padding_equal_separate_ones(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 1, 14)
    ids = np.array([[1] * 6 + [2] * 8])
    mask = np.array(
        [[False, False, True, True, True, True, True, True, False, True, True] + [False] * 3]
    )
    y = run(layer, x, segment_ids=ids, mask=mask)
    for one in (1, 2):
        here = mask[0] & (ids[0] == one)
        assert_close(y[0, here], run(layer, x[:, here])[0], name=f"segment {one}")


@pytest.mark.parametrize("case", **cases.by_id([c for c in PACKED if c in cases.CAUSAL]))
def test_packed_sequences_may_be_split_anywhere(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 2, 13)
    ids = np.array([[1] * 5 + [2] + [7] * 7, [4] * 3 + [5] * 10])
    y = run(layer, x, segment_ids=ids)
    for split, max_length in (([5, 8], None), ([8, 5], 20), ([3, 5, 5], 20), ([1] * 13, 20)):
        outputs, _ = run_chunks(layer, x, split, max_length, segment_ids=ids)
        assert_close(np.concatenate(outputs, axis=1), y, name=f"split {split}")


@pytest.mark.parametrize("case", **cases.by_id([c for c in cases.SEQUENCE if c.summarizes]))
def test_one_answer_a_row_refuses_packed_sequences(case, rng):
    layer = case.build()
    with pytest.raises(ValueError, match="segment_ids"):
        layer(case.inputs(rng, 1, 4), segment_ids=np.array([[0, 0, 1, 1]]))


def test_masks_travel_through_keras_layers(rng, assert_close):
    """A mask that a Keras layer makes reaches the mixers of a functional model."""
    import keras

    import ember_keras as ek

    tokens = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Embedding(9, 8, mask_zero=True)(tokens)
    hidden = ek.blocks.Block("hyena")(hidden)
    hidden = ek.blocks.Block("attention")(hidden)
    model = keras.Model(tokens, hidden)
    x = np.array([[0, 0, 3, 4, 5], [1, 2, 0, 0, 0]])
    y = run(model, x)
    assert_close(y[0, 2:], run(model, x[:1, 2:])[0])
    assert_close(y[1, :2], run(model, x[1:, :2])[0])


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
@pytest.mark.parametrize("shape", [(2, 4), (1, 3), (3,), (2, 3, 1)])
def test_a_mask_of_another_shape_is_refused(case, shape, rng):
    layer = case.build()
    with pytest.raises(ValueError, match="mask of shape"):
        layer(case.inputs(rng, 2, 3), mask=np.ones(shape, bool))
