"""The wrapper around a mixer that reads pooled positions, and the option of a block for it."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

POOLINGS = {"mean": np.mean, "max": np.max, "last": lambda x, axis: x[-1]}


class RunningSum(ek.layers.SequenceMixer):
    """The sum of all that it has read of a segment."""

    def mix(self, x, state, mask, segment_ids, training, return_state):
        options = {"mask": mask, "segment_ids": segment_ids, "return_state": return_state}
        y = ek.ops.linear_recurrence(keras.ops.ones_like(x), x, initial_state=state, **options)
        return y if return_state else (y, None)

    def initial_mixer_state(self, batch_size, max_length):
        return keras.ops.zeros((batch_size, 8))


def plain(x, mask, segments, size, pooling):
    """Row by row, position by position: a list of a sequence's positions, pooled when P are in."""
    y = np.zeros_like(x)
    for row in range(len(x)):
        waiting, total, output, segment = [], 0.0, np.zeros(x.shape[-1]), None
        for t in range(x.shape[1]):
            if not mask[row, t]:
                continue
            if segment is not None and segments[row, t] != segment:
                waiting, total, output = [], 0.0, np.zeros(x.shape[-1])
            segment = segments[row, t]
            waiting.append(x[row, t])
            if len(waiting) == size:
                total = total + POOLINGS[pooling](np.array(waiting), axis=0)
                waiting, output = [], total
            y[row, t] = output
    return y


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize("size", (2, 3, 5))
def test_it_is_the_plain_loop(size, pooling, rng, assert_close):
    layer = ek.layers.Pooled("min_gru", size, pooling)
    layer.mixer = RunningSum()
    layer.build((3, None, 8))
    for _ in range(8):
        time = int(rng.integers(1, 24))
        x = rng.normal(size=(3, time, 8)).astype("float32")
        mask = rng.random((3, time)) < rng.choice([0.3, 0.8, 1.0])
        segments = np.cumsum(rng.random((3, time)) < 0.15, axis=1).astype("int32") % 2
        expected = plain(x, mask, segments, size, pooling)
        y = ek.backend.to_numpy(layer(x, mask=mask, segment_ids=segments))
        assert_close(y[mask], expected[mask], 1e-5)

        state, parts, start = layer.initial_state(3), [], 0
        while start < time:
            end = min(time, start + int(rng.integers(1, 7)))
            given = {"mask": mask[:, start:end], "segment_ids": segments[:, start:end]}
            y, state = layer(x[:, start:end], state=state, return_state=True, **given)
            parts.append(ek.backend.to_numpy(y))
            start = end
        assert_close(np.concatenate(parts, axis=1)[mask], expected[mask], 1e-5)


def test_a_whole_pass_reads_a_shorter_sequence(rng):
    layer = ek.layers.Pooled("min_gru", 4)
    seen = []
    layer.build((2, 23, 8))
    inner = layer.mixer.mix
    layer.mixer.mix = lambda x, *others: seen.append(x.shape[1]) or inner(x, *others)
    layer(rng.normal(size=(2, 23, 8)).astype("float32"))
    assert seen == [5]


def test_a_block_pools_what_its_mixer_reads(rng, assert_close):
    x = rng.normal(size=(2, 11, 8)).astype("float32")
    block = ek.blocks.Block("min_gru", pool_size=3, pooling="max", norm=None)
    y = block(x)
    assert_close(ek.backend.to_numpy(y), x + ek.backend.to_numpy(block.mixer(x)), 1e-6)
    config = ek.registry.to_config(block)
    assert config["mixer"] == "min_gru" and config["pool_size"] == 3
    again = ek.registry.blocks.build(config)
    assert again.mixer.pool_size == 3 and again.mixer.pooling == "max"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mixer": {"type": "attention", "causal": False}}, "expected a causal mixer"),
        ({"pool_size": 1}, "without the wrapper"),
        ({"pool_size": 0}, "at least 2"),
        ({"pooling": "median"}, "pooling"),
    ],
)
def test_what_cannot_be_pooled_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ek.layers.Pooled(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mixer": "mlp", "pool_size": 2}, "`Block` received pool_size=2 and a `MLP`"),
        ({"pool_size": 0}, "`Block` received pool_size=0"),
    ],
)
def test_a_block_refuses_it_too(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ek.blocks.Block(**options)
