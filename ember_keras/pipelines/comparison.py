"""One trained model under a second backend, in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from ember_keras import backend
from ember_keras.config import environment
from ember_keras.pipelines.errors import InputError, RunError
from ember_keras.pipelines.opening import read_metrics

ORDER = ("torch", "tensorflow", "mlx", "numpy", "jax")
"""Which backend is asked first for a second opinion."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The held-out figures of one saved model under two backends.

    Args:
        first: str. The backend that trained it.
        second: str. The backend that loaded the saved file.
        figures: dict. Figure -> its value under the first and under the second.
    """

    first: str
    second: str
    figures: dict[str, tuple[float, float]]

    @property
    def difference(self) -> float:
        """The largest difference between the two, over all figures."""
        return max(abs(one - other) for one, other in self.figures.values())


def compare_backends(run: str | Path, second: str | None = None) -> Comparison:
    """Scores a run's saved model again under another backend, in a new process.

    Args:
        run: str or Path. The folder of a finished run.
        second: str or None. The other backend; None takes the first of `ORDER` that is usable here
            and did not train the model.

    Raises:
        InputError: there is no finished run, or no other backend.
        RunError: the other process failed.
    """
    metrics = read_metrics(run)
    first = metrics["backend"]
    usable = [name for name in ORDER if name != first and backend.installed()[name].usable]
    if not usable:
        raise InputError(f"No backend but {first} is installed here; expected a second one.")
    second = second or usable[0]
    command = [sys.executable, "-m", "ember_keras", "evaluate", str(run), "--json"]
    done = subprocess.run(  # noqa: S603 - this interpreter, and no shell
        [*command, "--backend", second],
        capture_output=True,
        text=True,
        env=environment.with_backend(second),
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise RunError(f"Scoring {run} under {second} failed: {reason}")
    again = json.loads(done.stdout)
    if again["backend"] != second:
        raise RunError(f"Asked for {second}, and {again['backend']} ran; nothing was compared.")
    return Comparison(
        first,
        second,
        {key: (value, again["held_out"][key]) for key, value in metrics["held_out"].items()},
    )
