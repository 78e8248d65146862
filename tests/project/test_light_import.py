"""`import ember_keras` stays light: what a command or one backend needs is imported by its use."""

import os
import subprocess
import sys

from conftest import BACKEND

HEAVY = {"aeon", "matplotlib", "pandas", "pydantic", "sklearn", "typer", "yaml"}
LIBRARIES = {"jax", "mlx", "tensorflow", "torch"}


def loaded(statement, backend=BACKEND):
    code = f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return set(run.stdout.split())


def test_import_brings_no_optional_library():
    # Keras imports some by itself where they are installed; alone it does not start under mlx.
    keras = loaded("import keras", "numpy" if BACKEND == "mlx" else BACKEND)
    ember = loaded("import ember_keras")
    assert "keras" in ember
    assert sorted(ember & (HEAVY | LIBRARIES - {BACKEND}) - keras) == []
