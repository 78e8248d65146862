"""A Ctrl-C that ends training between two batches."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

import keras


class Interrupts(keras.callbacks.Callback):
    """Turns Ctrl-C into a KeyboardInterrupt at the next batch, and a second one into one at once.

    Raised wherever Python happens to be, a KeyboardInterrupt can be lost (Python drops what is
    raised in a finalizer or by a callback of the garbage collector) or break the library it comes
    in (jax, stopped while it traces, may crash when the process ends). So inside `with`, on the
    main thread, and only where Ctrl-C has Python's own meaning, the first is kept until `check`.

    Args:
        report: callable, given one line when the first Ctrl-C comes.

    Attributes:
        heard: bool. Whether a Ctrl-C came.
    """

    def __init__(self, report: Callable[[str], None]):
        super().__init__()
        self.heard = False
        self._report = report
        self._installed = False

    def __enter__(self) -> Interrupts:
        on_main = threading.current_thread() is threading.main_thread()
        if on_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._hear)
            self._installed = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False

    def check(self) -> None:
        """Raises KeyboardInterrupt where a Ctrl-C came."""
        if self.heard:
            raise KeyboardInterrupt

    def on_train_begin(self, logs=None):
        self.check()

    def on_train_batch_begin(self, batch, logs=None):
        self.check()

    def on_test_batch_begin(self, batch, logs=None):
        self.check()

    def on_epoch_end(self, epoch, logs=None):
        self.check()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            signal.default_int_handler(number, frame)
        self.heard = True
        with contextlib.suppress(RuntimeError):  # It came in the middle of another line.
            self._report("\nCtrl-C: stopping after this batch. Once more stops at once.")
