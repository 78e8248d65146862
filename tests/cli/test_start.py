"""How the command comes to its backend, before Keras is imported."""

import os
import subprocess
import sys

import pytest
from cli.command import start
from conftest import BACKENDS

from ember_keras.backend import _command


def run(arguments, environment, folder):
    """Runs the command as a process with an environment and a home of its own."""
    process = start(arguments, cwd=folder, env={**os.environ, "HOME": str(folder), **environment})
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["list"], {"KERAS_BACKEND": "jaxx"}, ["jaxx", "Did you mean 'jax'?"]),
        (["--backend", "tensor", "list"], {}, ["--backend", "'tensor'", "torch"]),
        (["list", "--backend=cntk"], {}, ["cntk", "expected one of numpy"]),
        (["list"], {"EMBER_KERNELS": "fastest"}, ["EMBER_KERNELS", "fastest", "portable"]),
        (["list"], {"EMBER_KERNEL": "auto"}, ["EMBER_KERNEL", "Did you mean 'EMBER_KERNELS'?"]),
    ],
    ids=["KERAS_BACKEND", "--backend", "--backend=", "EMBER_KERNELS", "EMBER_"],
)
def test_unknown(arguments, environment, words, tmp_path):
    status, out, err = run(arguments, environment, tmp_path)
    assert (status, out) == (2, "")
    *logged, told = err.splitlines()
    assert told.startswith("ember-keras: ")
    assert not logged or os.environ["KERAS_BACKEND"] == "tensorflow"  # It logs when imported.
    assert "Traceback" not in err
    for word in words:
        assert word in told


@pytest.mark.once
@pytest.mark.parametrize("backend", BACKENDS)
def test_option_goes_before_the_environment(backend, tmp_path):
    status, out, _ = run(["--backend", backend, "--version"], {"KERAS_BACKEND": "foo"}, tmp_path)
    assert status == 0 and f"{backend} backend" in out


@pytest.mark.once
def test_interrupted_while_it_imports(tmp_path):
    before = (
        "import builtins\nreal = builtins.__import__\n"
        "def load(name, *rest):\n    if name == 'keras':\n        raise KeyboardInterrupt\n"
        "    return real(name, *rest)\nbuiltins.__import__ = load"
    )
    process = start(["list"], before, cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err) == (1, "", "ember-keras: Interrupted.\n")


@pytest.mark.once
def test_doctor_reports_under_another_backend(tmp_path):
    status, out, err = run(["doctor", "--json"], {"KERAS_BACKEND": "jaxx"}, tmp_path)
    assert status == 0 and '"backends"' in out
    assert "Did you mean 'jax'?" in err and "this report runs under jax" in err


@pytest.mark.once
def test_module_and_default(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-m", "ember_keras", "list", "--backend", "numpy", "--json"],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("{")


@pytest.mark.once
def test_reader_that_goes_away(tmp_path):
    process = start(["list", "--schema"], cwd=tmp_path)
    with process:
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in err and "Broken" not in err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["train", "x.yaml"], None),
        (["--backend", "jax", "train"], "jax"),
        (["train", "--backend=torch", "x.yaml"], "torch"),
        (["--backend", "jax", "train", "--backend", "mlx"], "mlx"),
        (["train", "--", "--backend", "jax"], None),
        (["train", "--backend"], None),
    ],
)
def test_requested(given, expected):
    assert _command.requested(given) == expected


@pytest.mark.parametrize(
    ("argv", "original", "expected"),
    [
        (["/bin/ember-keras", "list"], [], ["list"]),
        (["-m", "list"], ["python", "-W", "error", "-m", "ember_keras", "list"], ["list"]),
        (["-m", "list"], ["python", "-member_keras", "list"], ["list"]),
        (["-m", "ember_keras"], ["python", "-m", "pytest", "ember_keras"], None),
        (["script.py", "--backend", "jax"], [], None),
        (["-c"], ["python", "-c", ""], None),
    ],
)
def test_whether_this_process_is_the_command(monkeypatch, argv, original, expected):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert _command.arguments() == expected


class _Found:
    def __init__(self, usable):
        self.usable, self.reason = usable, "" if usable else "not installed"


@pytest.mark.parametrize("usable", [["torch", "numpy"], ["numpy"], ["jax", "torch"]])
def test_default_where_tensorflow_is_missing(monkeypatch, tmp_path, capsys, usable):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "")
    found = {name: _Found(name in usable) for name in BACKENDS}
    monkeypatch.setattr(_command._installed, "installed", lambda: found)
    _command._choose(None)
    assert os.environ["KERAS_BACKEND"] == usable[0]
    assert capsys.readouterr().err == (
        f"ember-keras: KERAS_BACKEND is not set; using {usable[0]}.\n"
    )
    with pytest.raises(ValueError, match="--backend mlx, which cannot run here"):
        _command._choose("mlx")
