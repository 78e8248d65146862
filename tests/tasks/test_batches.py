import keras
import numpy as np
import pytest

from ember_keras.tasks import Batches, InContextRecall


def arrays(rows=10):
    x = np.arange(rows, dtype="float32")[:, None]
    return {"x": x, "y": x[:, 0].copy(), "sample_weight": None}


def drawn(batches, epoch):
    batches.epoch = epoch
    return [x[:, 0].tolist() for x, _ in batches]


def test_a_pass_has_each_row_at_most_once_in_full_batches():
    batches = Batches(arrays(), batch_size=4, seed=0)
    for epoch in range(5):
        rows = drawn(batches, epoch)
        assert [len(part) for part in rows] == [4, 4]
        assert len(set(sum(rows, []))) == 8
    assert len({str(drawn(batches, epoch)) for epoch in range(5)}) == 5


def test_rows_targets_and_weights_stay_together():
    parts = {**arrays(), "sample_weight": np.arange(10.0)}
    for x, y, weight in Batches(parts, batch_size=3, seed=0):
        assert np.array_equal(x[:, 0], y) and np.array_equal(y, weight)


def test_an_epoch_may_be_shorter_or_longer_than_a_pass():
    assert len(drawn(Batches(arrays(), batch_size=4, seed=0, steps=1), 0)) == 1
    rows = drawn(Batches(arrays(), batch_size=5, seed=0, steps=4), 0)
    assert sorted(rows[0] + rows[1]) == sorted(rows[2] + rows[3]) == list(range(10))
    assert rows[:2] != rows[2:]


def test_a_resumed_run_draws_what_an_unbroken_one_draws():
    whole, resumed = (Batches(arrays(), batch_size=4, seed=9) for _ in range(2))
    expected = [drawn(whole, epoch) for epoch in range(6)]
    assert [drawn(resumed, epoch) for epoch in range(3, 6)] == expected[3:]
    again = Batches(arrays(), batch_size=4, **resumed.get_state())
    assert [x[:, 0].tolist() for x, _ in again] == expected[5]


def test_few_rows_make_one_small_batch():
    assert [len(part) for part in drawn(Batches(arrays(3), batch_size=64, seed=0), 0)] == [3]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        Batches(arrays(), batch_size=0, seed=0)
    with pytest.raises(ValueError, match="the same number"):
        Batches({**arrays(), "y": np.zeros(9)}, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="the same number"):
        Batches({"x": np.zeros((0, 3)), "y": np.zeros(0)}, batch_size=2, seed=0)
    with pytest.raises(IndexError, match="expected 0 to 1"):
        Batches(arrays(), batch_size=4, seed=0)[2]


def make_model():
    model = keras.Sequential([keras.layers.Dense(1)])  # Unbuilt: Keras looks at a batch first.
    model.compile(optimizer="sgd", loss="mse")
    return model


@pytest.mark.trains
def test_fit_sees_each_epoch_once_and_in_order():
    class Recorded(Batches):
        def draw(self, index):
            batch = super().draw(index)
            seen.append((self.epoch, index, batch[1].tolist()))
            return batch

    seen = []
    batches = Recorded(arrays(), batch_size=4, seed=2)
    model = make_model()
    fit = {"shuffle": False, "callbacks": [batches.callback], "verbose": 0}
    model.fit(batches, epochs=2, **fit)
    model.fit(batches, initial_epoch=2, epochs=4, **fit)
    known = {}
    for epoch, index, rows in seen:  # Keras may look at a batch before, or ahead; never another.
        assert known.setdefault((epoch, index), rows) == rows
    assert list(known) == [(epoch, index) for epoch in range(4) for index in range(2)]
    assert len({str(rows) for rows in known.values()}) == 8


@pytest.mark.trains
def test_fit_without_the_callback_is_refused():
    with pytest.raises(ValueError, match="callbacks=.batches.callback."):
        make_model().fit(Batches(arrays(), batch_size=4, seed=2), epochs=4, verbose=0)


def test_metrics_are_exact_over_what_is_scored(rng):
    task = InContextRecall(length=8, train_samples=1, test_samples=21)
    data = task.load(0)
    table = rng.normal(size=(16, 16)).astype("float32")  # A model whose logits are known.
    model = keras.Sequential([keras.layers.Embedding(16, 16)])
    model.build((None, 8))
    model.set_weights([table])
    model.compile(optimizer="adam", **task.compile_arguments())
    found = model.evaluate(**data.held_out.arguments(), batch_size=8, return_dict=True, verbose=0)
    logits = table.astype("float64")[data.test.x]
    wrong = np.log(np.exp(logits).sum(axis=-1))
    wrong -= np.take_along_axis(logits, data.test.y[..., None], axis=-1)[..., 0]
    right = logits.argmax(axis=-1) == data.test.y
    weight = data.test.sample_weight
    expected = {"cross_entropy": wrong, "accuracy": right}
    expected = {key: (part * weight).sum() / weight.sum() for key, part in expected.items()}
    assert task.summarize(found, data) == pytest.approx(expected, rel=1e-5)


@pytest.mark.trains
def test_the_loss_averages_over_what_is_scored():
    task = InContextRecall(length=8, train_samples=4)
    model = keras.Sequential([keras.layers.Embedding(16, 16)])
    model.build((None, 8))
    model.compile(optimizer="sgd", **task.compile_arguments())
    data = task.load(0)
    batches = task.batches(data, batch_size=4, seed=0)
    fit = {"shuffle": False, "callbacks": [batches.callback], "verbose": 0}
    history = model.fit(batches, epochs=1, **fit).history
    (loss,), (cross_entropy,) = history["loss"], history["cross_entropy"]
    assert float(loss) == pytest.approx(float(cross_entropy), rel=1e-5)
