"""Training that ends on time, with a learning rate that has come down by then."""

from __future__ import annotations

import math
import time

import keras


class TimeBudget(keras.callbacks.Callback):
    """Ends `fit` cleanly, after a batch, once a number of minutes has passed.

    The clock starts with training, so compilation and the evaluation after each epoch count. The
    epoch that is running ends there: its evaluation and the other callbacks still run.

    Args:
        minutes: float, more than 0. The time that training may take.

    Example:

    ```python
    import keras
    import numpy as np
    from ember_keras.callbacks import TimeBudget

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.ones((8, 3), "float32")
    budget = TimeBudget(minutes=5)
    model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[budget])
    print(budget.spent)  # False: two epochs took less than five minutes
    ```
    """

    def __init__(self, minutes: float):
        super().__init__()
        self.minutes = _positive(minutes, "minutes")
        self.spent = False
        self._deadline = math.inf

    def on_train_begin(self, logs=None):
        self.spent = False
        self._deadline = time.monotonic() + 60 * self.minutes

    def on_train_batch_end(self, batch, logs=None):
        if not self.spent and time.monotonic() >= self._deadline:
            self.spent = True
            self.model.stop_training = True


class BudgetedSchedule(keras.callbacks.Callback):
    """A learning rate that follows the steps or the clock, whichever is further along.

    A schedule over steps alone never comes down on a machine that is too slow to take them all in
    the time there is; one over time alone wastes a fast machine. This one anneals fully on both. It
    assigns the optimizer's `learning_rate`, so compile the optimizer with a number, not a schedule.
    The clock's share counts from the end of the first batch, which compiles.

    Args:
        peak: float, more than 0. The learning rate after the warm-up.
        shape: `"cosine"`, `"linear"` or `"constant"`. How it comes down from there.
        warmup_steps: int. Steps of a linear climb from near 0 to `peak`.
        final: float, from 0 to 1. The share of `peak` that is left at the end.
        minutes: float or None. The time budget, as given to `TimeBudget`; None follows steps alone.

    Example:

    ```python
    import keras
    import numpy as np
    from ember_keras.callbacks import BudgetedSchedule, TimeBudget

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(1e-3), "mse")
    x = np.ones((8, 3), "float32")
    schedule = BudgetedSchedule(1e-3, warmup_steps=2, minutes=5)
    model.fit(x, x[:, :1], epochs=9, verbose=0, callbacks=[schedule, TimeBudget(5)])
    print(float(model.optimizer.learning_rate) < 1e-4)  # True
    ```
    """

    SHAPES = ("cosine", "linear", "constant")

    def __init__(
        self,
        peak: float,
        shape: str = "cosine",
        warmup_steps: int = 0,
        final: float = 0.0,
        minutes: float | None = None,
    ):
        super().__init__()
        if shape not in self.SHAPES:
            raise ValueError(f"Received shape={shape!r}; expected one of {', '.join(self.SHAPES)}.")
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise ValueError(f"Received warmup_steps={warmup_steps!r}; expected an int >= 0.")
        if not 0 <= final <= 1:
            raise ValueError(f"Received final={final!r}; expected a share of the peak, 0 to 1.")
        self.peak = _positive(peak, "peak")
        self.shape = shape
        self.warmup_steps = warmup_steps
        self.final = final
        self.minutes = None if minutes is None else _positive(minutes, "minutes")
        self.progress = 0.0
        self._step = 0
        self._began = self._compiled = 0.0
        self._assigned: float | None = None

    def on_train_begin(self, logs=None):
        self._step, self.progress, self._assigned = 0, 0.0, None
        self._began = self._compiled = time.monotonic()
        if self.shape != "constant" and self.minutes is None and not self._total():
            raise ValueError(
                "The number of steps is unknown and there is no time budget, so the learning rate "
                "has nothing to follow; give `fit` a steps_per_epoch, or this callback `minutes`."
            )
        self._assign()

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if self._step == 1:
            self._compiled = time.monotonic()
        by_steps = self._step / self._total() if self._total() else 0.0
        self.progress = min(1.0, max(self.progress, by_steps, self._by_time()))
        self._assign()

    def value(self, step: int, progress: float) -> float:
        """The learning rate after `step` steps, at a share `progress` of the whole."""
        left = {
            "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
            "linear": 1.0 - progress,
            "constant": 1.0,
        }[self.shape]
        climb = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.peak * climb * (self.final + (1.0 - self.final) * left)

    def _total(self) -> int:
        return self.params["epochs"] * (self.params["steps"] or 0)

    def _by_time(self) -> float:
        if self.minutes is None:
            return 0.0
        budget = self._began + 60 * self.minutes - self._compiled
        return 1.0 if budget <= 0 else (time.monotonic() - self._compiled) / budget

    def _assign(self) -> None:
        rate = self.value(self._step, self.progress)
        # Setting it makes jax and mlx put their state back into the model: not for half a percent.
        if self._assigned is None or abs(rate - self._assigned) > 0.005 * self._assigned:
            self.model.optimizer.learning_rate = rate
            self._assigned = rate


def _positive(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"Received {name}={value!r}; expected a number above 0.")
    return float(value)
