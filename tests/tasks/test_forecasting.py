"""Forecasting: which windows are whose, what they are compared with, and training from YAML."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.tasks import Forecasting

import keras  # isort: skip - under mlx after ember_keras

TINY = {"length": 8, "horizon": 2, "series": 4, "steps": 40}


@pytest.mark.once
def test_windows_ask_for_the_steps_of_their_own_part(tmp_path):
    x = np.arange(100.0).reshape(1, 50, 2)
    np.savez(tmp_path / "series.npz", x=np.concatenate([x, x + 1000]))
    options = {"length": 10, "horizon": 3, "validation": 0.2, "normalize": False}
    data = Forecasting(files=str(tmp_path / "series.npz"), stride=1, **options).load(0)
    asked = {"train": (10, 30), "validation": (30, 40), "test": (40, 50)}
    for part, (start, end) in asked.items():
        split = getattr(data, part)
        assert split.x.shape[1:] == (10, 2) and split.y.shape[1:] == (3, 2)
        steps = split.y[split.y[:, 0, 0] < 1000][..., 0] / 2
        assert steps.min() == start and steps.max() == end - 1
        assert len(steps) == len(split) / 2 == end - start - 2
        assert (split.y[:, 0] - split.x[:, -1] == 2).all()
    few = Forecasting(files=str(tmp_path / "series.npz"), **options).load(0)
    assert len(few.test) == 6


@pytest.mark.once
def test_figures_are_in_the_series_own_unit(tmp_path):
    rng = np.random.default_rng(0)
    x = 50 + 10 * rng.normal(size=(3, 60))
    np.savez(tmp_path / "series.npz", x=x)
    task = Forecasting(files=str(tmp_path / "series.npz"), length=8, horizon=2)
    data = task.load(0)
    train = x[:, :42]
    assert data.description["scale"] == pytest.approx([train.std()])
    figures = task.summarize({"loss": 1.0, "pinball": 0.5, "coverage": 0.7}, data)
    assert figures == {"pinball": pytest.approx(0.5 * train.std()), "coverage": 0.7}
    found = task.baselines(data)
    assert found["last value and past changes"] < found["last value"]
    own = task.decode(data.test.y[..., None], data.description)
    last = task.decode(data.test.x[:, -1:, :, None], data.description)
    assert found["last value"] == pytest.approx(np.abs(own - last).mean() / 2, rel=1e-5)
    assert own.min() > 10 and own.max() < 100


@pytest.mark.once
def test_generated_series_are_the_seed_alone():
    task = Forecasting(**TINY)
    first, again, other = (task.load(seed) for seed in (0, 0, 1))
    assert (first.test.x == again.test.x).all() and (first.test.x != other.test.x).any()
    assert task.model_arguments(first) == {
        "horizon": 2,
        "num_outputs": 1,
        "quantiles": [0.1, 0.5, 0.9],
    }
    assert task.output_shape(first) == (2, 1, 3)
    assert ek.registry.to_config(task)["series"] == 4


@pytest.mark.once
def test_a_file_is_read_from_its_end(tmp_path):
    task = Forecasting(**TINY)
    description = task.load(0).description
    x, y = np.arange(60.0).reshape(2, 30), np.arange(4.0).reshape(2, 2)
    path = str(tmp_path / "new.npz")
    np.savez(path, x=x)
    split = task.read(path, description)
    assert split.y is None and split.x.shape == (2, 8, 1)
    np.savez(path, x=x, y=y)
    split = task.read(path, description)
    back = split.y * description["scale"][0] + description["mean"][0]
    assert back[..., 0] == pytest.approx(y, abs=1e-5)
    for wrong in ({"x": x[:, :5]}, {"x": x, "y": y[:, :1]}, {"x": np.full((1, 9), np.nan)}):
        np.savez(path, **wrong)
        with pytest.raises(ValueError, match=r"Received .* expected"):
            task.read(path, description)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "GunPoint", "files": "x.npz"},
        {"horizon": 0},
        {"test": 0.0},
        {"validation": 0.5, "test": 0.5},
        {"quantiles": [0.9, 0.1]},
    ],
)
@pytest.mark.once
def test_what_cannot_be_asked_is_refused(options):
    with pytest.raises(ValueError, match="eceived"):
        Forecasting(**options)


@pytest.mark.once
def test_series_too_short_for_a_part_are_refused():
    with pytest.raises(ValueError, match="the validation part has 2; expected room for horizon=3"):
        Forecasting(length=8, horizon=3, steps=20).load(0)


def test_metrics_are_their_equations(rng, assert_close):
    quantiles = [0.2, 0.6, 0.9]
    y = rng.normal(size=(5, 2, 1)).astype("float32")
    z = np.sort(rng.normal(size=(5, 2, 1, 3)).astype("float32"), axis=-1)
    expected = {
        "pinball": float(ek.models.PinballLoss(quantiles)(y, z)),
        "absolute_error": np.abs(y - z[..., 1]).mean(),
        "coverage": ((y >= z[..., 0]) & (y <= z[..., 2])).mean(),
    }
    for name, value in expected.items():
        metric = ek.models.ForecastMetric(name, quantiles)
        metric.update_state(y[:3], z[:3])
        metric.update_state(y[3:], z[3:])
        assert_close(float(metric.result()), value, 1e-5)
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert again.get_config() == metric.get_config()
    with pytest.raises(ValueError, match="figure='mode', expected one of"):
        ek.models.ForecastMetric("mode")


@pytest.mark.trains
def test_it_trains_from_a_configuration(tmp_path):
    run = ek.registry.pipelines.build(
        {
            "type": "training",
            "task": {"type": "forecasting", **TINY},
            "model": {"type": "forecaster", "width": 8, "blocks": ["lru"]},
            "training": {"epochs": 1, "batch_size": 8, "steps_per_epoch": 2},
        }
    )
    done = run.run(tmp_path / "runs")
    held_out = done.metrics["held_out"]
    assert held_out["pinball"] > 0 and 0 <= held_out["coverage"] <= 1
    assert ek.load_model(done.folder / "model.keras").horizon == 2
    np.save(tmp_path / "new.npy", np.zeros((3, 12)))
    predict = ek.registry.pipelines.build("prediction")
    found = predict.run(done.folder, str(tmp_path / "new.npy"))
    assert found.values.shape == (3, 2, 1, 3) and (np.diff(found.values, axis=-1) > 0).all()
    scored = ek.registry.pipelines.build("evaluation").run(done.folder)
    assert scored["held_out"]["pinball"] == pytest.approx(held_out["pinball"], rel=1e-4)
