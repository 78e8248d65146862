"""Saved under one backend, loaded under any other: 25 pairs, from ten processes."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

BACKENDS = ("numpy", "torch", "jax", "tensorflow", "mlx")
NEEDED = ("torch", "jax", "tensorflow", "mlx", "keras_mlx")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
TOLERANCES = {
    ".keras": 1e-5,
    ".weights.h5": 1e-5,
    "weights": 0,
    "optimizer": 0,
    "next step": 1e-4,
}
BFLOAT16 = 3e-2  # Six blocks computed in 8 bits of mantissa, by different libraries.

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs all five backends; missing: {MISSING}"),
]


def work(action, backend, folder):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    worker = Path(__file__).with_name("matrix_worker.py")
    command = [sys.executable, "-W", "error::UserWarning", str(worker), action, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{action} under {backend}:\n{done.stderr[-3000:]}"


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """What each backend found in the files of all; two processes at a time."""
    folder = tmp_path_factory.mktemp("matrix")
    with ThreadPoolExecutor(2) as pool:
        for action in ("save", "load"):
            failures = list(pool.map(lambda backend, a=action: work(a, backend, folder), BACKENDS))
            assert not any(failures), "\n".join(failures)
    return {backend: json.loads((folder / f"{backend}.json").read_text()) for backend in BACKENDS}


@pytest.mark.parametrize("loader", BACKENDS)
@pytest.mark.parametrize("saver", BACKENDS)
def test_saved_under_one_loaded_under_another(saver, loader, reports):
    found = reports[loader][saver]
    assert len(found) == 9
    both_train = "numpy" not in (saver, loader)
    for model, errors in found.items():
        expected = {".keras", ".weights.h5", "weights"} | ({"optimizer"} if both_train else set())
        assert expected <= set(errors), f"{model}: {sorted(errors)}"
        for what, error in errors.items():
            limit = TOLERANCES[what]
            if model.endswith("bfloat16") and what.startswith("."):
                limit = BFLOAT16
            assert error <= limit, f"{model}, {what}: off by {error:.1e}, allowed {limit:.0e}"
    steps = [errors["next step"] for errors in found.values() if "next step" in errors]
    assert len(steps) == (2 if both_train else 0)
