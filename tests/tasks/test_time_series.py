import importlib.util
import json

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.tasks import TimeSeries

needs_aeon = pytest.mark.skipif(
    importlib.util.find_spec("aeon") is None, reason="the package aeon is not installed"
)


@pytest.fixture
def save(tmp_path):
    """Writes an .npz and gives its path."""

    def write(name="data.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return write


@pytest.fixture
def waves(rng):
    return {"x": rng.normal(3.0, 2.0, size=(24, 10, 2)), "y": np.arange(24) % 3}


# Shapes as the archive states them; nearest-neighbour accuracies are 1 minus the error of
# 1-NN Euclidean in its summary table (timeseriesclassification.com), to 4 digits.
@needs_aeon
@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "neighbour"),
    [
        ("GunPoint", (50, 150, 1), (150, 150, 1), 2, 0.9133),
        ("OSULeaf", (200, 427, 1), (242, 427, 1), 6, 0.5207),
        ("ACSF1", (100, 1460, 1), (100, 1460, 1), 10, 0.54),
        ("BasicMotions", (40, 100, 6), (40, 100, 6), 4, None),
    ],
)
def test_shipped_sets(name, train, test, classes, neighbour):
    task = TimeSeries(name=name)
    data = task.load(seed=0)
    assert data.train.x.shape == train and data.test.x.shape == test
    assert data.train.x.dtype == np.float32 and data.train.y.dtype == np.int32
    assert data.validation is None and data.held_out is data.test
    assert task.model_arguments(data) == {"num_classes": classes}
    assert sorted(set(data.train.y.tolist())) == list(range(classes))
    assert data.train.x.mean(axis=(0, 1)) == pytest.approx(0, abs=1e-5)
    assert data.train.x.std(axis=(0, 1)) == pytest.approx(1, abs=1e-4)
    assert not {row.tobytes() for row in data.train.x} & {row.tobytes() for row in data.test.x}
    if neighbour is not None:
        assert task.baselines(data)["nearest neighbour"] == pytest.approx(neighbour, abs=5e-5)


@needs_aeon
def test_shipped_names_and_ragged_sets():
    with pytest.raises(ValueError, match="'GunPiont'(.|\n)*BasicMotions(.|\n)*Did you mean 'GunPo"):
        TimeSeries(name="GunPiont").load(0)
    with pytest.raises(ValueError, match="7 to 26 steps(.|\n)*JapaneseVowels_eq"):
        TimeSeries(name="JapaneseVowels").load(0)
    with pytest.raises(ValueError, match="ships inside"):
        TimeSeries(name="../GunPoint").load(0)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'ember-keras\[data\]'"):
        TimeSeries().load(0)


def test_a_users_file(save, waves):
    path = save(**waves, x_test=waves["x"][:6] + 1, y_test=waves["y"][:6])
    task = TimeSeries(files=path)
    data = task.load(0)
    mean, std = waves["x"].mean(axis=(0, 1)), waves["x"].std(axis=(0, 1))
    assert np.allclose(data.train.x, (waves["x"] - mean) / std, atol=1e-6)
    assert np.allclose(data.test.x, (waves["x"][:6] + 1 - mean) / std, atol=1e-6)
    assert data.train.y.tolist() == waves["y"].tolist()
    assert data.description == json.loads(json.dumps(data.description))
    plain = TimeSeries(files=path, normalize=False).load(0)
    assert np.array_equal(plain.train.x, waves["x"].astype("float32"))


def test_statistics_leave_the_validation_samples_out(save, waves):
    data = TimeSeries(files=save(**waves), validation=0.25).load(0)
    assert len(data.train) == 18 and len(data.validation) == 6 and data.test is None
    assert data.held_out is data.validation
    assert data.train.x.mean(axis=(0, 1)) == pytest.approx(0, abs=1e-6)
    assert abs(data.validation.x.mean()) > 1e-4


@pytest.mark.parametrize("validation", [0.01, 0.25, 0.5, 0.99])
def test_validation_is_drawn_from_each_class(save, waves, validation):
    path = save(**waves)
    one = TimeSeries(files=path, validation=validation, normalize=False).load(4)
    two = TimeSeries(files=path, validation=validation, normalize=False).load(4)
    other = TimeSeries(files=path, validation=validation, normalize=False).load(5)
    assert np.array_equal(one.validation.x, two.validation.x)
    assert not np.array_equal(one.validation.x, other.validation.x) or validation == 0.99
    rows = [row.tobytes() for part in (one.train, one.validation) for row in part.x]
    assert len(set(rows)) == len(rows) == 24
    counts = np.bincount(one.validation.y, minlength=3)
    assert counts.max() - counts.min() <= 1
    assert set(one.train.y.tolist()) == {0, 1, 2}


def test_labels_are_numbered_in_sorted_order(save, waves):
    for labels, classes in [
        (np.array(["10", "9", "-1"]), ["-1", "9", "10"]),
        (np.array(["b", "a", "10"]), ["10", "a", "b"]),
        (np.array([2.0, 0.0, 7.0]), ["0", "2", "7"]),
        (np.array([True, False, True]), ["0", "1"]),
    ]:
        y = labels[waves["y"]]
        task = TimeSeries(files=save(x=waves["x"], y=y), validation=0.2)
        data = task.load(0)
        assert data.description["classes"] == classes
        logits = np.eye(len(classes))
        assert task.decode(logits, data.description).tolist() == classes


def test_regression_is_scaled_and_reported_in_its_own_unit(save, waves):
    y = waves["x"].mean(axis=(1, 2)) * 100
    task = TimeSeries(files=save(x=waves["x"], y=y), target="regression", validation=0.25)
    data = task.load(0)
    assert task.kind == "regression" and task.model_arguments(data) == {"num_outputs": 1}
    assert data.train.y.shape == (18, 1) and data.train.y.std() == pytest.approx(1, abs=1e-5)
    back = task.decode(np.concatenate([data.train.y, data.validation.y]), data.description)
    assert np.sort(back[:, 0]) == pytest.approx(np.sort(y), rel=1e-5)
    scale = data.description["target_scale"][0]
    figures = task.summarize({"loss": 1, "mean_squared_error": 4, "mean_absolute_error": 2}, data)
    assert figures == pytest.approx(
        {"mean_squared_error": 4 * scale**2, "mean_absolute_error": 2 * scale}
    )
    true = task.decode(data.validation.y, data.description)
    guess = task.decode(data.train.y, data.description).mean()
    expected = np.abs(true - guess).mean()
    assert task.baselines(data)["mean of the targets"] == pytest.approx(expected, rel=1e-5)


def test_several_targets_a_sample(save, waves):
    y = waves["x"][:, 0, :]
    task = TimeSeries(files=save(x=waves["x"], y=y), target="regression", validation=0.25)
    data = task.load(0)
    assert task.model_arguments(data) == {"num_outputs": 2}
    assert task.summarize({"mean_absolute_error": 2.0}, data) == {"mean_absolute_error": 2.0}


def test_a_new_file_is_treated_as_the_training_data(save, waves):
    task = TimeSeries(files=save(**waves), validation=0.25)
    facts = json.loads(json.dumps(task.load(0).description))
    unlabelled = task.read(save("new.npz", x=waves["x"][:5]), facts)
    expected = (waves["x"][:5] - facts["mean"]) / facts["scale"]
    assert np.allclose(unlabelled.x, expected, atol=1e-6) and unlabelled.y is None
    with pytest.raises(ValueError, match="5 samples without targets"):
        unlabelled.arguments()
    labelled = task.read(save("new.npz", x=waves["x"][:5], y=waves["y"][:5]), facts)
    assert labelled.y.tolist() == waves["y"][:5].tolist()
    with pytest.raises(ValueError, match="3 channels(.|\n)*expected 2"):
        task.read(save("new.npz", x=np.zeros((2, 10, 3))), facts)
    with pytest.raises(ValueError, match="classes 8(.|\n)*0, 1, 2"):
        task.read(save("new.npz", x=np.zeros((2, 10, 2)), y=np.array([0, 8])), facts)


def test_missing_values(save, waves):
    x = waves["x"].copy()
    x[3, 4, 1] = x[5, 0, 0] = np.nan
    path = save(x=x, y=waves["y"])
    with pytest.raises(ValueError, match="nan in `x`.*sample 3, step 4, channel 1, and 2 such"):
        TimeSeries(files=path, validation=0.2).load(0)
    data = TimeSeries(files=path, validation=0.2, missing="zero").load(0)
    both = np.concatenate([data.train.x, data.validation.x])
    assert np.isfinite(both).all() and (both == 0).sum() == 2
    x[3, 4, 1] = np.inf
    with pytest.raises(ValueError, match="inf in `x`"):
        TimeSeries(files=save(x=x, y=waves["y"]), validation=0.2, missing="zero").load(0)
    x[3, 4, 1], x[5, 0, 0] = 0.0, 1e300
    with pytest.raises(ValueError, match="sample 5, step 0"):
        TimeSeries(files=save(x=x, y=waves["y"]), validation=0.2).load(0)


def test_a_channel_that_never_varies_stays_finite(save, waves):
    waves["x"][:, :, 0] = 5.0
    data = TimeSeries(files=save(**waves), validation=0.2).load(0)
    assert (data.train.x[:, :, 0] == 0).all()
    waves["x"][:, :, 0] = np.nan
    data = TimeSeries(files=save(**waves), validation=0.2, missing="zero").load(0)
    assert (data.train.x[:, :, 0] == 0).all()


def test_data_that_cannot_be_used_is_refused(save, waves, tmp_path):
    x, y = waves["x"], waves["y"]
    for arrays, arguments, problem in [
        ({"x": x, "y": y}, {"validation": 0.0}, "no test data"),
        ({"x": x}, {}, "without `y`"),
        ({"x": x, "y": y, "x_test": x}, {}, "without `y_test`"),
        ({"x": x, "y": y[:5]}, {}, "one target a sample"),
        ({"x": x[:, :0], "y": y}, {}, "at least one sample, one step"),
        ({"x": x[:0], "y": y[:0]}, {}, "at least one sample, one step"),
        ({"x": x[:, 0, 0], "y": y}, {}, "shape"),
        ({"x": x.astype(str), "y": y}, {}, "real numbers"),
        ({"x": x, "y": y * 0}, {}, "1 class"),
        ({"x": x, "y": y + 0.5}, {}, "label 0.5 at sample 0"),
        ({"x": x, "y": y * np.nan}, {}, "label nan at sample 0"),
        ({"x": x, "y": np.eye(3)[y]}, {}, "one-hot"),
        ({"x": x, "y": y.astype(str)}, {"target": "regression", "normalize": False}, None),
        ({"x": x, "y": np.array(["a", "b", "c"])[y]}, {"target": "regression"}, "no numbers"),
        ({"x": x, "y": y * np.nan}, {"target": "regression"}, "target nan"),
        ({"x": x[:3], "y": y[:3]}, {}, "can be spared"),
        ({"x": x, "y": y, "x_test": x, "y_test": y + 1}, {}, "classes 3"),
        ({"x": x, "y": y, "x_test": x[..., :1], "y_test": y}, {}, "1 channels"),
    ]:
        with np.errstate(invalid="ignore"):
            task = TimeSeries(files=save(**arrays), **{"validation": 0.2, **arguments})
        if problem is None:
            task.load(0)
            continue
        with pytest.raises(ValueError, match=problem):
            task.load(0)


def test_arguments_that_cannot_work_are_refused():
    for arguments, problem in [
        ({"target": "clasification"}, "'clasification'"),
        ({"missing": "drop"}, "'drop'"),
        ({"validation": 1.0}, "validation=1.0"),
        ({"test_files": "a.npz"}, "without `files`"),
    ]:
        with pytest.raises(ValueError, match=problem):
            TimeSeries(**arguments)


def test_it_is_built_by_name_and_saved_as_configuration():
    config = {"type": "time_series", "name": "OSULeaf", "validation": 0.2}
    assert ek.registry.to_config(ek.registry.tasks.build(config)) == config
