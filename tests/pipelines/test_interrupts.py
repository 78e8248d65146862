"""Ctrl-C in training, also where Python would lose a KeyboardInterrupt."""

import gc
import signal
import threading

import pytest

import ember_keras as ek
from ember_keras.pipelines import figures
from ember_keras.pipelines.errors import RunError
from ember_keras.pipelines.interrupts import Interrupts

import keras  # isort: skip - under mlx after ember_keras


def training(epochs=10**6):
    return ek.registry.pipelines.build(
        {
            "type": "training",
            "task": {"type": "in_context_recall", "length": 16, "train_samples": 32},
            "model": {"type": "causal_lm", "width": 8},
            "training": {"epochs": epochs, "steps_per_epoch": 2, "batch_size": 4},
        }
    )


@pytest.fixture(autouse=True)
def handler():
    """The meaning of Ctrl-C before and after."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def ctrl_c():
    """A Ctrl-C that comes while the garbage collector runs a callback."""

    def interrupt(phase, info):
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(interrupt)
    gc.collect()


def once(act):
    """A report that acts on its first line."""
    lines = []

    def report(line):
        lines.append(line)
        if len(lines) == 1:
            act()

    return report


@pytest.mark.trains
def test_before_the_first_epoch(tmp_path):
    with pytest.raises(RunError, match=r"^Interrupted\. No epoch .* nothing is left behind\.$"):
        training().run(tmp_path / "new" / "runs", report=once(ctrl_c))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trains
@pytest.mark.parametrize("event", ["on_train_batch_end", "on_epoch_end", "on_epoch_begin"])
def test_within_an_epoch(tmp_path, monkeypatch, event):
    pipeline, fit = training(), keras.Model.fit
    seen = []

    def at_the_third(index, logs=None):
        seen.append(index)
        if len(seen) == 3:
            ctrl_c()

    def fit_with(*arguments, callbacks, **options):
        noisy = keras.callbacks.Callback()
        setattr(noisy, event, at_the_third)
        return fit(*arguments, callbacks=[noisy, *callbacks], **options)

    monkeypatch.setattr(keras.Model, "fit", fit_with)
    with pytest.raises(RunError, match=r"^Interrupted\. The last finished epoch, \d, is saved"):
        pipeline.run(tmp_path)
    assert len(seen) == 3
    assert (tmp_path / "in_context_recall" / "model.keras").exists()


@pytest.mark.trains
def test_while_the_held_out_data_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "score", lambda *given: signal.raise_signal(signal.SIGINT))
    with pytest.raises(RunError, match=r"^Interrupted\. The last finished epoch, 1, is saved"):
        training(epochs=1).run(tmp_path)


def test_the_second_does_not_wait():
    told = []
    with Interrupts(told.append) as interrupts:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert len(told) == 1 and "stopping after this batch" in told[0]


def test_another_handler_stays_in_charge():
    heard = []
    signal.signal(signal.SIGINT, lambda *given: heard.append(given))
    try:
        with Interrupts(lambda line: None) as interrupts:
            signal.raise_signal(signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert len(heard) == 1


def test_outside_the_main_thread():
    entered = []

    def enter():
        with Interrupts(lambda line: None) as interrupts:
            entered.append(interrupts.heard)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [False]
