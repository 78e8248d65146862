"""Checkpoints that transformers made, once a test process that asks for them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """The folder of all checkpoints of `make_checkpoints.py`."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("checkpoints")
    maker = Path(__file__).with_name("make_checkpoints.py")
    # In a process of its own: torch and tensorflow in one may crash.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "KERAS_BACKEND": "torch"}
    run = subprocess.run(
        [sys.executable, maker, folder], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def expected(checkpoints):
    """What transformers computes with a checkpoint: tokens, logits, and greedy tokens."""
    return lambda name: dict(np.load(checkpoints / name / "expected.npz"))
