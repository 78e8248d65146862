"""`import ember_keras` stays light: what a command or one backend needs is imported by its use."""

import subprocess
import sys

from conftest import BACKEND

HEAVY = {"aeon", "matplotlib", "pandas", "pydantic", "sklearn", "typer", "yaml"}
LIBRARIES = {"jax", "mlx", "tensorflow", "torch"}


def loaded(statement):
    code = f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_brings_no_optional_library():
    keras = loaded("import keras") if BACKEND != "mlx" else set()
    ember = loaded("import ember_keras")
    assert "keras" in ember
    assert sorted(ember & (HEAVY | LIBRARIES - {BACKEND}) - keras) == []
