"""What happens at import, each in a fresh process: checks, errors, and that nothing is written."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ember_keras import backend
from ember_keras.backend import _activation, _graft

BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(code, tmp_path, **environ):
    """Run `code` in a fresh Python and return the finished process."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("EMBER_")}
    env |= {"KERAS_BACKEND": "numpy", "KERAS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env |= environ
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={key: value for key, value in env.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def last_line(process):
    assert process.returncode == 1, process.stdout + process.stderr
    return process.stderr.strip().splitlines()[-1]


def test_unknown_backend_names_the_five(tmp_path):
    message = last_line(run("import ember_keras", tmp_path, KERAS_BACKEND="pytorch"))
    assert message.startswith("ValueError: Unknown backend. Received 'pytorch'")
    assert "numpy, torch, jax, tensorflow, mlx" in message
    assert "Did you mean 'torch'?" in message


def test_the_variables_of_the_build_may_stay_set(tmp_path):
    done = run("import ember_keras", tmp_path, EMBER_CUDA="1", EMBER_CPU_KERNEL="0")
    assert done.returncode == 0, done.stderr


def test_unknown_variable_is_refused(tmp_path):
    message = last_line(run("import ember_keras", tmp_path, EMBER_KERNEL="auto"))
    assert "EMBER_KERNEL;" in message
    assert "Did you mean 'EMBER_KERNELS'?" in message


def test_backend_from_keras_json(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "numpy", "floatx": "float32"}')
    code = "import ember_keras, keras; print(ember_keras.backend.name(), keras.backend.backend())"
    process = run(code, tmp_path, KERAS_BACKEND=None)
    assert process.stdout.split() == ["numpy", "numpy"], process.stderr


def test_missing_backend_says_what_to_install(tmp_path):
    code = (
        "import importlib.util as u, sys\nreal = u.find_spec\n"
        "u.find_spec = lambda n, p=None: None if n == 'torch' else real(n, p)\n"
        "import ember_keras"
    )
    message = last_line(run(code, tmp_path, KERAS_BACKEND="torch"))
    assert message.startswith("ImportError: Keras is set to the torch backend")
    assert "pip install 'ember-keras[torch]'" in message


def test_numpy_without_jax_cannot_run(monkeypatch):
    real = importlib.util.find_spec

    def without_jax(name, *rest):
        return None if name == "jax" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_jax)
    found = backend.installed()["numpy"]
    assert not found.usable and "needs jax" in found.reason
    assert "pip install 'ember-keras[numpy]'" in found.reason


@pytest.mark.parametrize("version", ["3.15.0", "3.16.0", "4.0.1"])
def test_keras_outside_the_range(version):
    with pytest.raises(ImportError, match=r">=3\.15\.1,<3\.16"):
        _activation.check_keras_version(version)


def test_keras_version_without_importing_keras(tmp_path):
    code = """
    import sys
    from ember_keras.config import environment
    from ember_keras.backend import _activation
    """
    assert run(code, tmp_path).returncode == 0
    assert _activation.keras_version().startswith("3.15")


def test_plugin_loading_keras_is_recognised():
    stock = _activation._keras_file("backend", "__init__.py").read_text(encoding="utf-8")
    assert not _activation.loads_plugins(stock)
    assert _activation.loads_plugins('elif backend() == "mlx":\n    from keras_mlx.src import *')
    assert _activation.loads_plugins("importlib.import_module(f'keras_{backend()}')")


def test_every_anchor_matches_once():
    for name in _graft.PATCHES:
        spec = importlib.util.find_spec(name) if name.startswith("keras.") else None
        if spec:
            assert _graft.patched(name, Path(spec.origin).read_text(encoding="utf-8"))


def test_anchor_that_does_not_match_refuses():
    for source in ("", "x = 1\nx = 1\n"):
        with pytest.raises(ImportError, match="exactly once"):
            _graft.patched("keras.src.backend", source, [("x = 1", "x = 2")])
    assert _graft.patched("keras.src.backend", "x = 1\n", [("x = 1", "x = 2")]) == "x = 2\n"


def test_nothing_is_patched_under_other_backends(tmp_path):
    if backend.name() == "mlx":
        pytest.skip("concerns every backend other than mlx")
    code = """
    import sys
    before = list(sys.meta_path)
    import ember_keras, keras
    assert [f for f in sys.meta_path if "ember" in type(f).__module__] == []
    assert not any(name.startswith("ember_keras.backend.mlx_mends.") for name in sys.modules)
    assert "keras_mlx" not in sys.modules and "mlx" not in sys.modules
    assert not hasattr(keras.src.trainers.trainer, "BaseTrainer")
    print("clean")
    """
    process = run(code, tmp_path, KERAS_BACKEND=backend.name())
    assert process.stdout.split() == ["clean"], process.stderr


def test_keras_first_is_an_error(tmp_path, only_mlx):
    code = """
    import os
    import keras
    os.environ["KERAS_BACKEND"] = "mlx"
    import ember_keras
    """
    message = last_line(run(code, tmp_path, KERAS_BACKEND="numpy"))
    assert message.startswith("ImportError: Keras was imported before ember_keras")
    assert "Put `import ember_keras` before `import keras`." in message


def test_failed_keras_first_is_an_error(tmp_path, only_mlx):
    code = """
    try:
        import keras
    except ValueError:
        pass
    import ember_keras
    """
    message = last_line(run(code, tmp_path, KERAS_BACKEND="mlx"))
    assert message.startswith("ImportError: Keras was imported before ember_keras")


@pytest.mark.parametrize("missing", ["mlx", "keras-mlx"])
def test_missing_package_says_what_to_install(tmp_path, only_mlx, missing):
    code = BLOCK.format(names=("mlx",)) if missing == "mlx" else ""
    if missing == "keras-mlx":
        code = (
            "import importlib.metadata as m\nreal = m.version\n"
            "def version(name):\n"
            "    if name == 'keras-mlx':\n        raise m.PackageNotFoundError(name)\n"
            "    return real(name)\n"
            "m.version = version\n"
        )
    message = last_line(run(code + "\nimport ember_keras", tmp_path, KERAS_BACKEND="mlx"))
    assert message.startswith("ImportError: KERAS_BACKEND is mlx and ")
    assert missing in message
    assert "mlx-cpu==0.31.2" in message


def test_other_plugin_version_is_refused(tmp_path, only_mlx):
    code = """
    import importlib.metadata as m
    m.version = lambda name: "0.0.2"
    import ember_keras
    """
    message = last_line(run(code, tmp_path, KERAS_BACKEND="mlx"))
    assert message.startswith("ImportError: Received keras-mlx 0.0.2; expected 0.0.1.")


def test_changed_keras_refuses(tmp_path, only_mlx):
    code = """
    from importlib.machinery import SourceFileLoader
    stock = SourceFileLoader.get_source
    def get_source(self, name):
        text = stock(self, name)
        return text.replace("mixin class", "class") if name == "keras.src.layers.layer" else text
    SourceFileLoader.get_source = get_source
    import ember_keras
    """
    message = last_line(run(code, tmp_path, KERAS_BACKEND="mlx"))
    assert "pip install 'keras==3.15.1'" in message


def test_import_writes_only_what_keras_writes(tmp_path, only_mlx):
    process = run("import ember_keras, keras", tmp_path, KERAS_BACKEND="mlx")
    assert process.returncode == 0, process.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keras.json"]


def test_models_pickle_into_another_process(tmp_path, only_mlx):
    code = """
    import pickle, sys
    import ember_keras, keras, numpy as np
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    x = np.ones((1, 3), "float32")
    with open({path!r}, "wb") as file:
        pickle.dump((model, x, model.predict(x, verbose=0)), file)
    """.replace("{path!r}", repr(str(tmp_path / "model.pickle")))
    read = f"""
    import pickle
    import ember_keras, numpy as np
    with open({str(tmp_path / "model.pickle")!r}, "rb") as file:
        model, x, y = pickle.load(file)
    np.testing.assert_array_equal(model.predict(x, verbose=0), y)
    print("same")
    """
    assert run(code, tmp_path, KERAS_BACKEND="mlx").returncode == 0
    process = run(read, tmp_path, KERAS_BACKEND="mlx")
    assert process.stdout.split() == ["same"], process.stderr
