"""Whole files or none: round trips, what replaces what, and what a failure leaves behind."""

import io
import os
import stat
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from saving import cases

import ember_keras as ek
from ember_keras.models.saving import (
    LoadError,
    api,
    load_model,
    load_weights,
    save_model,
    save_weights,
    writing,
)


def predictions(model, x):
    return keras.ops.convert_to_numpy(model(x))


def optimizer_values(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]


def randomise(model, rng):
    for variable in (*model.variables, *model.optimizer.variables):
        if "float" in keras.backend.standardize_dtype(variable.dtype):
            variable.assign(rng.normal(size=variable.shape).astype("float32"))


def test_model_round_trip(good, tmp_path, rng):
    model = cases.small_model()
    randomise(model, rng)
    save_model(model, tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predictions(model, good.x), predictions(again, good.x))
    assert type(again.optimizer) is type(model.optimizer)
    for old, new in zip(optimizer_values(model), optimizer_values(again), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_round_trip(good, tmp_path, rng):
    model, again = cases.small_model(), cases.small_model()
    randomise(model, rng)
    save_weights(model, tmp_path / "model.weights.h5")
    load_weights(again, tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(predictions(model, good.x), predictions(again, good.x))
    for old, new in zip(optimizer_values(model), optimizer_values(again), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_out_of_a_model_file(good):
    model = cases.small_model()
    load_weights(model, good.keras)
    np.testing.assert_array_equal(predictions(model, good.x), good.y)


def test_keras_reads_our_files_and_we_read_its(good, tmp_path):
    np.testing.assert_array_equal(predictions(keras.models.load_model(good.keras), good.x), good.y)
    model = cases.small_model()
    model.load_weights(good.weights)
    np.testing.assert_array_equal(predictions(model, good.x), good.y)
    good.model.save(tmp_path / "its.keras")
    good.model.save_weights(tmp_path / "its.weights.h5")
    np.testing.assert_array_equal(predictions(load_model(tmp_path / "its.keras"), good.x), good.y)
    load_weights(model, tmp_path / "its.weights.h5")


def test_compile_false_leaves_the_optimizer(good):
    model = load_model(good.keras, compile=False)
    assert not model.compiled
    np.testing.assert_array_equal(predictions(model, good.x), good.y)


def test_an_optimizer_that_had_not_begun(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    save_model(model, tmp_path / "model.keras")
    assert len(load_model(tmp_path / "model.keras").optimizer.variables) == 2


def test_jit_compile_is_left_to_the_backend_that_loads(good, tmp_path):
    def change(config):
        config["compile_config"]["jit_compile"] = True

    cases.with_config(good, tmp_path / "jit.keras", change)
    assert load_model(tmp_path / "jit.keras").jit_compile is good.model.jit_compile


def test_optimizers_that_torch_names_its_own_way(good, tmp_path):
    def change(config):
        optimizer = config["compile_config"]["optimizer"]
        optimizer["module"] = "keras.src.backend.torch.optimizers.torch_adam"
        optimizer["registered_name"] = "Adam"

    cases.with_config(good, tmp_path / "torch.keras", change)
    assert type(load_model(tmp_path / "torch.keras").optimizer) is type(good.model.optimizer)


def test_weights_for_another_optimizer(good, tmp_path):
    model = cases.small_model()
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(LoadError, match="optimizer/vars"):
        load_weights(model, good.weights)
    load_weights(model, good.weights, optimizer=False)
    np.testing.assert_array_equal(predictions(model, good.x), good.y)


def test_weights_without_an_optimizer(good, tmp_path):
    plain = keras.models.clone_model(good.model)
    save_weights(plain, tmp_path / "plain.weights.h5")
    model = cases.small_model()
    load_weights(model, tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(predictions(model, good.x), predictions(plain, good.x))


def test_layers_shared_between_models_are_not_torn_apart(tmp_path):
    shared = keras.layers.Dense(3, name="shared")
    parts = []
    for name in ("left", "right"):
        x = keras.Input((3,))
        parts.append(keras.Model(x, shared(x), name=name))
    x = keras.Input((3,))
    model = keras.Model(x, parts[0](x) + parts[1](2 * x))
    with pytest.raises(ValueError, match="'shared' stands in more than one part"):
        save_model(model, tmp_path / "shared.keras")
    model.save(tmp_path / "shared.keras")
    with pytest.raises(LoadError, match="'shared' stands in more than one part"):
        load_model(tmp_path / "shared.keras")


class Pair(keras.Model):
    """A model that takes layers as arguments."""

    def __init__(self, one, other, **kwargs):
        super().__init__(**kwargs)
        self.one, self.other = one, other

    def call(self, x):
        return self.other(self.one(x))

    def get_config(self):
        return {"one": self.one, "other": self.other}

    @classmethod
    def from_config(cls, config):
        return cls(**{key: keras.saving.deserialize_keras_object(config[key]) for key in config})


def test_a_layer_given_twice_stays_one(good, tmp_path):
    layer = keras.layers.Dense(3)
    model = Pair(layer, layer)
    model(good.x)
    save_model(model, tmp_path / "pair.keras")
    again = load_model(tmp_path / "pair.keras", custom_objects={"Pair": Pair})
    assert again.one is again.other
    np.testing.assert_array_equal(predictions(model, good.x), predictions(again, good.x))


def test_what_could_never_be_loaded_is_not_saved(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(abs)])
    with pytest.raises(ValueError, match="could never be loaded.*Lambda"):
        save_model(model, tmp_path / "code.keras")
    assert not os.listdir(tmp_path)


def test_vocabularies_in_assets(tmp_path, backend):
    if backend != "tensorflow":
        pytest.skip("Keras's lookup layers run inside a model under tensorflow only")
    lookup = keras.layers.StringLookup()
    lookup.adapt(np.array(["a", "b", "a"]))
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    save_model(model, tmp_path / "words.keras")
    assert load_model(tmp_path / "words.keras").layers[-1].get_vocabulary() == ["[UNK]", "a", "b"]


class Doubled(keras.layers.Layer):
    """A user's own layer."""

    def call(self, x):
        return 2 * x

    def compute_output_shape(self, input_shape):  # Keras's numpy backend would call it on garbage.
        return input_shape


def own_metric(y_true, y_pred):
    return keras.ops.mean(y_pred)


def test_custom_objects(good, tmp_path):
    model = keras.Sequential([keras.Input((3,)), Doubled()])
    model.compile(loss="mse", metrics=[own_metric])
    save_model(model, tmp_path / "own.keras")
    with pytest.raises(LoadError, match="Doubled.*custom_objects"):
        load_model(tmp_path / "own.keras")
    own = {"Doubled": Doubled, "own_metric": own_metric}
    again = load_model(tmp_path / "own.keras", custom_objects=own)
    np.testing.assert_array_equal(predictions(again, good.x), 2 * good.x)
    for name in ("Dense", "Adam", "Lambda", "ember_keras>CausalLM"):
        with pytest.raises(ValueError, match="shadow a built-in"):
            load_model(good.keras, custom_objects={name: Doubled})
    with pytest.raises(TypeError, match="expected a class or function"):
        load_model(good.keras, custom_objects={"Own": 3})


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("model.h5", ValueError, "ends in `.keras`"),
        ("model", ValueError, "ends in `.keras`"),
        (".keras", ValueError, "ends in `.keras`"),
        ("no/model.keras", FileNotFoundError, "does not exist"),
        ("folder.keras", IsADirectoryError, "it is a folder"),
        ("hf://model.keras", ValueError, "expected a path on this machine"),
    ],
)
def test_where_a_model_cannot_be_saved(good, tmp_path, monkeypatch, name, error, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(error, match=says):
        save_model(good.model, name)
    assert sorted(os.listdir(tmp_path)) == ["folder.keras"]


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="expected a keras.Model"):
        save_model(keras.layers.Dense(2), tmp_path / "layer.keras")
    with pytest.raises(ValueError, match="not built"):
        save_model(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "model.keras")
    with pytest.raises(ValueError, match="not built"):
        load_weights(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "model.weights.h5")
    assert not os.listdir(tmp_path)


def test_overwrite(good, tmp_path):
    path = tmp_path / "model.keras"
    save_model(good.model, path, overwrite=False)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_model(good.model, path, overwrite=False)
    assert path.read_bytes() == b"mine"
    save_model(good.model, path)
    load_model(path)
    assert os.listdir(tmp_path) == ["model.keras"]


def test_permissions_and_links(good, tmp_path):
    old = os.umask(0o027)
    try:
        save_model(good.model, tmp_path / "new.keras")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new.keras").stat().st_mode) == 0o640
    (tmp_path / "new.keras").chmod(0o600)
    (tmp_path / "link.keras").symlink_to("new.keras")
    save_model(good.model, tmp_path / "link.keras")
    assert (tmp_path / "link.keras").is_symlink()
    assert stat.S_IMODE((tmp_path / "new.keras").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("boom"), OSError(28, "No space")]
)
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_failure_leaves_the_old_file(good, tmp_path, monkeypatch, suffix, error):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(api, "saved_arrays", fail)  # After the new file is written.
    with pytest.raises(type(error)) as caught:
        (save_model if suffix == ".keras" else save_weights)(good.model, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]
    if isinstance(error, OSError):
        assert str(path) in str(caught.value) and "is unchanged" in str(caught.value)


def test_an_ember_model_saves_itself_whole(tmp_path, monkeypatch):
    model = ek.models.SequenceRegressor(width=8, blocks=["hyena"])
    model(np.ones((1, 5, 2), "float32"))
    path = tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(api, "saved_arrays", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(str(path))
    assert path.read_bytes() == before
    with pytest.raises(FileExistsError):
        model.save(path, overwrite=False)
    model.save(tmp_path / "folder", zipped=False)
    assert sorted(os.listdir(tmp_path)) == ["folder", "model.keras"]


class Tokens(keras.Model):
    """A subclassed model without `build`, over tokens."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = keras.layers.Embedding(7, 8)
        self.mixer = ek.layers.Hyena()
        self.head = keras.layers.Dense(3)

    def call(self, x):
        return self.head(self.mixer(self.embedding(x)))


def test_a_subclassed_model_over_tokens(tmp_path, rng, monkeypatch):
    x = rng.integers(0, 7, (2, 9))
    model = Tokens()
    expected = predictions(model, x)
    save_model(model, tmp_path / "model.keras")

    def garbage(shape, dtype=float, **options):  # What the numpy backend of Keras builds with.
        return np.full(shape, 1e9, dtype)

    monkeypatch.setattr(np, "empty", garbage)
    again = load_model(tmp_path / "model.keras", custom_objects={"Tokens": Tokens})
    np.testing.assert_array_equal(predictions(again, x), expected)


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE")
def test_full_disk(good, tmp_path):
    """A limit on the size of files makes every write fail half-way, as a full disk does."""
    code = f"""
import os, resource, sys
import ember_keras, keras
from ember_keras.models.saving import load_model, load_weights, save_model, save_weights
os.chdir({str(tmp_path)!r})
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(2000)])
small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
save_model(small, "model.keras")
save_weights(small, "model.weights.h5")
for size in (0, 1000, 100_000, 400_000, 513_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for save, name in ((save_model, "model.keras"), (save_weights, "model.weights.h5")):
        try:
            save(model, name)
        except OSError as error:
            print("refused:", error)
        else:
            sys.exit("saved " + name + " in " + str(size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    load_model("model.keras").load_weights("model.weights.h5")
    assert sorted(os.listdir()) == ["model.keras", "model.weights.h5"], os.listdir()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert len(lines) == 10
    assert all("Cannot save to" in line and "unchanged" in line for line in lines)
    assert "Traceback" not in done.stderr


def hidden_name(name, suffix, process, host=None, token="5" * 16):
    """The name under which a process writes a file."""
    return f".{name}-{host or writing._host()}-{process}-{token}{suffix}"


@pytest.fixture
def dead():
    """The number of a process that is no more."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="what is left is found on POSIX alone")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_what_a_killed_process_left_goes_with_the_next_save(good, tmp_path, suffix):
    save = {".keras": "save_model", ".weights.h5": "save_weights"}[suffix]
    code = f"""
import os, keras
from ember_keras.models import saving
from ember_keras.models.saving import api
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(2000)])
api.saved_arrays = lambda *given: os.kill(os.getpid(), 9)  # After the new file is written.
saving.{save}(model, {str(tmp_path / f"model{suffix}")!r})
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KERAS_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size > 500_000
    getattr(api, save)(good.model, tmp_path / f"another{suffix}")
    assert left.exists(), "that of another name stays"
    getattr(api, save)(good.model, tmp_path / f"model{suffix}")
    assert sorted(os.listdir(tmp_path)) == [f"another{suffix}", f"model{suffix}"]


@pytest.mark.skipif(sys.platform == "win32", reason="what is left is found on POSIX alone")
def test_what_others_write_stays(good, tmp_path, dead, monkeypatch):
    busy = hidden_name("model", ".keras", os.getpid())
    monkeypatch.setattr(writing, "_written", {busy})
    kept = [
        busy,  # Of another thread of this process.
        hidden_name("model", ".keras", os.getppid()),
        hidden_name("model", ".keras", 1),
        hidden_name("model", ".keras", dead, host="0" * 8),
        hidden_name("model", ".keras", f"0{dead}"),
        hidden_name("model", ".keras", dead) + "x",
        "x" + hidden_name("model", ".keras", dead),
        hidden_name("models", ".keras", dead),
        hidden_name("model", ".json", dead),
        ".model-mine.keras",
    ]
    gone = [
        hidden_name("model", ".keras", dead),
        hidden_name("model", ".keras", os.getpid(), token="6" * 16),
    ]
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "file").write_bytes(b"mine")
    (tmp_path / hidden_name("model", ".keras", dead, token="7" * 16)).symlink_to(linked)
    for name in kept + gone:
        (tmp_path / name).write_bytes(b"half")
    save_model(good.model, tmp_path / "model.keras")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "linked", "model.keras"])
    assert (linked / "file").read_bytes() == b"mine"


def test_what_does_not_read_back_replaces_nothing(good, tmp_path, monkeypatch):
    path = tmp_path / "model.weights.h5"
    path.write_bytes(b"old")

    def write_less(model):
        data = io.BytesIO()
        h5py.File(data, "w").close()
        return data.getbuffer()

    monkeypatch.setattr(api, "write_arrays", write_less)
    with pytest.raises(OSError, match="does not read back"):
        save_weights(good.model, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_model(tmp_path / "no.keras")
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_model("hf://keras/model.keras")


def test_max_bytes(good):
    with pytest.raises(LoadError, match="larger `max_bytes`"):
        load_model(good.keras, max_bytes=1000)
    with pytest.raises(LoadError, match="larger `max_bytes`"):
        load_weights(good.model, good.weights, max_bytes=1000)
