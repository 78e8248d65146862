"""What the law files share.

Ember Keras comes before Keras, as MLX needs it, whichever of the law files runs alone.
"""

import ember_keras  # isort: skip

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from laws import cases, reference

CASES_A_CACHE = 8
"""Cases after which jax forgets what it compiled: until then they share small operations."""

_forgotten = itertools.count(1)


@pytest.fixture(autouse=True)
def one_case_at_a_time(request):
    """Drops what was built and compiled for a case before the next: there are hundreds."""
    case = getattr(request.node, "callspec", None) and request.node.callspec.params.get("case")
    if case is not None and cases.forget_others(case):
        if ember_keras.backend.name() == "jax" and next(_forgotten) % CASES_A_CACHE == 0:
            import jax

            jax.clear_caches()


@pytest.fixture(scope="session")
def known(tmp_path_factory):
    """The arrays of law 4's reference, a dict a case; made once for all test processes."""
    here = tmp_path_factory.getbasetemp()
    shared = (here if os.environ.get("PYTEST_XDIST_WORKER") is None else here.parent) / "reference"
    done = shared / "reference.npz"
    try:
        shared.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 900
        while not done.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
    else:
        _make_reference(shared / "unfinished.npz")
        (shared / "unfinished.npz").rename(done)
    found = {}
    with np.load(done) as arrays:
        for key in arrays.files:
            case, _, name = key.partition("|")
            found.setdefault(case, {})[name] = arrays[key]
    return found


def _make_reference(path):
    environment = {**os.environ, "KERAS_BACKEND": "numpy", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(reference.__file__)), str(path)]
    subprocess.run(command, env=environment, check=True, timeout=900)
