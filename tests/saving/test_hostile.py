"""Hostile files: each is refused with one clear error, and nothing in it takes effect."""

import json
import os
import socket
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from saving import cases, hostile, hostile_archives, hostile_configs, hostile_weights  # noqa: F401

from ember_keras.models.saving import LoadError, load_model, load_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a file made the loader open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture(autouse=True)
def no_registered_evil():
    yield
    keras.saving.get_custom_objects().pop("other>Evil", None)


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in the file ran"


def load(good, path):
    if path.name.endswith(".weights.h5"):
        load_weights(good.model, path)
    else:
        load_model(path)


def make_all(names, good, folder, canary):
    files = []
    for case in names:
        make, _, _, suffix = hostile.HOSTILE[case]
        files.append(str(folder / f"{case}{suffix}"))
        make(good, folder / f"{case}{suffix}", canary)
    return files


def in_fresh_process(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("case", hostile.HOSTILE)
def test_hostile_file(case, good, tmp_path, canary):
    make, _, says, suffix = hostile.HOSTILE[case]
    folder = tmp_path / "files"
    folder.mkdir()
    path = folder / f"file{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the names that the cases give twice.
        make(good, path, canary)
    before = sorted(folder.rglob("*"))
    modules = set(sys.modules)
    weights = [np.array(value) for value in good.model.get_weights()]
    with pytest.raises(LoadError, match=says) as caught:
        load(good, path)
    message = str(caught.value)
    assert str(path) in message and "Traceback" not in message and len(message) < 1500
    assert message.isprintable() and "hunt" not in message
    assert sorted(folder.rglob("*")) == before, "loading left a file behind"
    assert not {name for name in set(sys.modules) - modules if name.startswith("keras_hub")}
    for old, new in zip(weights, good.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


GUARDED = ("lambda_layer", "vocabulary_path", "saved_model_layer", "torch_module", "unsafe_switch")


def test_nothing_lowers_the_guard(good, tmp_path, canary):
    files = make_all(GUARDED, good, tmp_path, canary)
    code = f"""
import ember_keras, keras
from ember_keras.models.saving import LoadError, load_model
keras.config.enable_unsafe_deserialization()
for file in {files!r}:
    try:
        load_model(file)
    except LoadError as error:
        print("refused:", error)
"""
    done = in_fresh_process(code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("refused: Cannot load") == len(files)


def test_load_model_takes_no_safe_mode(good):
    with pytest.raises(TypeError, match="safe_mode"):
        load_model(good.keras, safe_mode=False)


BOMBS = (
    "zip_bomb",
    "json_bomb",
    "huge_layer",
    "our_endless_repeats",
    "our_many_repeats",
    "our_huge_width",
    "deep_json",
    "huge_shape_in_keras",
    "huge_compressed_in_keras",
    "huge_shape_in_weights_h5",
)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds memory on Linux only")
def test_bombs_stay_within_bounded_memory(good, tmp_path, canary):
    files = make_all(BOMBS, good, tmp_path, canary)
    says = [hostile.HOSTILE[case][2] for case in BOMBS]
    code = f"""
import json, re, resource
import ember_keras
from saving import cases
from ember_keras.models.saving import LoadError, load_model, load_weights
load_model({str(good.keras)!r})
model = cases.small_model()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
limit = used * 1024 + (512 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
refused = 0
for file, says in {list(zip(files, says, strict=True))!r}:
    try:
        load_weights(model, file) if file.endswith(".h5") else load_model(file)
    except LoadError as error:
        assert re.search(says, str(error)), error
        refused += 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([refused, grown / 1024]))
"""
    done = in_fresh_process(code)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, grown = json.loads(done.stdout.splitlines()[-1])
    assert refused == len(files)
    assert grown < 300, f"{grown:.0f} MiB were taken"


def test_truncated_anywhere(good, tmp_path):
    for whole, suffix in ((good.keras, ".keras"), (good.weights, ".weights.h5")):
        data = whole.read_bytes()
        path = tmp_path / f"cut{suffix}"
        for size in [1, 3, 4, 8, *range(20, len(data), len(data) // 40), len(data) - 1]:
            path.write_bytes(data[:size])
            if suffix == ".weights.h5" and size > len(data) - 100:
                continue  # Only the checksum after the end of the data is cut.
            with pytest.raises(LoadError, match="Cannot load"):
                load(good, path)


def test_flipped_bytes(good, tmp_path, rng):
    """A damaged file is refused, or the damage was where it does not matter."""
    weights = [np.array(value) for value in good.model.get_weights()]
    refused = 0
    for whole, suffix in ((good.keras, ".keras"), (good.weights, ".weights.h5")):
        data = whole.read_bytes()
        path = tmp_path / f"flipped{suffix}"
        for _ in range(60):
            flipped = bytearray(data)
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                flipped[place] ^= int(rng.integers(1, 256))
            path.write_bytes(flipped)
            model = good.model
            try:
                if suffix == ".keras":
                    model = load_model(path)
                else:
                    load_weights(model, path)
            except LoadError:
                refused += 1
            for old, new in zip(weights, model.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)
    assert refused > 60


def test_flipped_hdf5_without_checksums(good, tmp_path, rng):
    """HDF5 of an attacker has no checksum that would tell: refused, or loaded as numbers."""
    data = cases.members(good.keras)[cases.WEIGHTS]
    model = cases.small_model()
    path = tmp_path / "flipped.weights.h5"
    refused = 0
    for _ in range(60):
        flipped = bytearray(data)
        for place in rng.integers(len(data) // 2, size=2):
            flipped[place] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        try:
            load_weights(model, path)
        except LoadError:
            refused += 1
    assert refused > 5
