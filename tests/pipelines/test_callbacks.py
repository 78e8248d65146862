"""The callbacks in a plain Keras `fit`."""

import types

import numpy as np
import pytest

from ember_keras import callbacks
from ember_keras.callbacks import budget

import keras  # isort: skip - under mlx after ember_keras

pytestmark = pytest.mark.trains


@pytest.fixture
def fit():
    """Fits a line with some callbacks, 4 steps an epoch; gives the model."""

    def run(*given, epochs=1, y=None, **arguments):
        model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        x = np.linspace(-1, 1, 16, dtype="float32")[:, None]
        model.fit(
            x,
            2 * x if y is None else y,
            batch_size=4,
            epochs=epochs,
            verbose=0,
            shuffle=False,
            callbacks=list(given),
            **arguments,
        )
        return model

    return run


class Rates(keras.callbacks.Callback):
    """Notes the learning rate that each step is taken with, which moves a clock on."""

    def __init__(self, move=lambda: None):
        super().__init__()
        self.seen, self.move = [], move

    def on_train_batch_begin(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate
        self.seen.append(float(keras.ops.convert_to_numpy(rate)))
        self.move()


@pytest.fixture
def minute(monkeypatch):
    """Stops the clock of the callbacks; moves it on by one minute."""
    now = [1000.0]
    monkeypatch.setattr(budget, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return lambda: now.__setitem__(0, now[0] + 60)


def test_time_budget_ends_at_a_batch(fit, minute):
    rates, spending = Rates(minute), callbacks.TimeBudget(minutes=5.5)
    model = fit(rates, spending, epochs=10**6)
    assert spending.spent and len(rates.seen) == 6
    assert len(model.history.history["loss"]) == 2


def test_schedule_follows_the_steps(fit):
    rates = Rates()
    fit(callbacks.BudgetedSchedule(0.08, warmup_steps=3), rates, epochs=2)
    cosine = 0.04 * (1 + np.cos(np.pi * np.arange(8) / 8))
    climb = np.minimum(1, np.arange(1, 9) / 4)
    np.testing.assert_allclose(rates.seen, cosine * climb, rtol=0.006)


def test_schedule_follows_the_time(fit, minute):
    rates = Rates(minute)
    schedule = callbacks.BudgetedSchedule(1e-3, "linear", final=0.1, minutes=11)
    fit(rates, schedule, callbacks.TimeBudget(minutes=11), epochs=10**6)
    assert schedule.progress == 1.0
    # The first batch compiles; the ten minutes that are left are the schedule's.
    down = 1e-3 * (0.1 + 0.9 * (1 - np.arange(10) / 10))
    np.testing.assert_allclose(rates.seen, [1e-3, *down], rtol=1e-4)


def test_constant_schedule(fit):
    rates = Rates()
    fit(callbacks.BudgetedSchedule(0.05, "constant", warmup_steps=1), rates, epochs=2)
    np.testing.assert_allclose(rates.seen, [0.025] + 7 * [0.05], rtol=1e-6)


def test_the_learning_rate_takes_effect(fit):
    frozen = fit(callbacks.BudgetedSchedule(1e-12, "constant"), epochs=2)
    initial = keras.ops.convert_to_numpy(frozen.layers[0].kernel)
    moving = fit(callbacks.BudgetedSchedule(0.2, "constant"), epochs=2)
    assert frozen.history.history["loss"][1] == pytest.approx(frozen.history.history["loss"][0])
    assert moving.history.history["loss"][1] < 0.9 * moving.history.history["loss"][0]
    assert np.isfinite(initial).all()


def test_stop_on_nan_keeps_the_last_good_epoch(fit, tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                kernel = self.model.layers[0].kernel
                kernel.assign(np.full((1, 1), np.nan, "float32"))

    saving = callbacks.SaveEveryEpoch(tmp_path / "model.keras")
    with pytest.raises(FloatingPointError, match=r"`loss` was nan at batch 1 of epoch 3"):
        fit(Poison(), callbacks.StopOnNaN(), saving, epochs=5)
    assert saving.epoch == 2
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_broken_weights_are_not_saved(fit, tmp_path):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                kernel = self.model.layers[0].kernel
                kernel.assign(np.full((1, 1), np.inf, "float32"))

    saving = callbacks.SaveEveryEpoch(tmp_path / "model.keras")
    fit(Poison(), saving)
    assert saving.epoch == 0 and list(tmp_path.iterdir()) == []


def test_best_epoch(fit, tmp_path):
    saving = callbacks.SaveEveryEpoch(tmp_path / "model.keras", monitor="val_loss", mode="max")
    x = np.ones((4, 1), "float32")
    fit(saving, epochs=3, validation_data=(x, 2 * x))
    assert saving.epoch == 1
    with pytest.raises(ValueError, match="monitor='val_los'"):
        fit(callbacks.SaveEveryEpoch(tmp_path / "model.keras", monitor="val_los"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: callbacks.TimeBudget(0), "minutes=0"),
        (lambda: callbacks.TimeBudget(float("nan")), "minutes=nan"),
        (lambda: callbacks.BudgetedSchedule(-1.0), "peak=-1.0"),
        (lambda: callbacks.BudgetedSchedule(1.0, "cosin"), "shape='cosin'"),
        (lambda: callbacks.BudgetedSchedule(1.0, warmup_steps=-1), "warmup_steps=-1"),
        (lambda: callbacks.BudgetedSchedule(1.0, final=2.0), "final=2.0"),
        (lambda: callbacks.SaveEveryEpoch("model.h5"), "'.keras'"),
        (lambda: callbacks.SaveEveryEpoch("model.keras", mode="least"), "mode='least'"),
    ],
)
def test_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
