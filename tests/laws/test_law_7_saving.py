"""Law 7: configurations and files give the same thing back; no option renames a variable.

Across backends this is tested by the matrix in `tests/saving`.
"""

import keras
import pytest
from keras import tree
from laws import cases
from laws.support import call, run, step

import ember_keras as ek

ALL = cases.SEQUENCE + cases.CHANNEL


def _paths(layer):
    return [w.path.partition("/")[2] for w in layer.weights]


@pytest.mark.parametrize("case", **cases.by_id(ALL + cases.NAMED))
def test_a_config_builds_the_same_layer_again(case, rng, assert_close):
    layer = case.build()
    again = type(layer).from_config(layer.get_config())
    x = case.inputs(rng, 2, 13)
    cases.build_symbolically(again, x)
    assert _paths(again) == _paths(layer)
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    assert_close(run(again, x), run(layer, x), 1e-6)


@pytest.mark.parametrize("case", **cases.by_id(ALL + cases.NAMED))
def test_yaml_builds_it_and_is_written_back_the_same(case):
    registry = getattr(ek.registry, case.kind)
    component = registry.build(case.name, **dict(case.options))
    text = ek.config.to_yaml(ek.registry.to_config(component))
    again = registry.build(ek.config.from_yaml(text))
    assert ek.config.to_yaml(ek.registry.to_config(again)) == text
    ours, theirs = again.get_config(), component.get_config()
    ours.pop("name"), theirs.pop("name")
    assert ours == theirs


@pytest.mark.parametrize("case", **cases.by_id(ALL))
def test_a_keras_file_gives_the_same_outputs(case, rng, tmp_path, assert_close):
    layer = case.build()
    x = case.inputs(rng, 2, 13)
    expected = run(layer, x)
    if isinstance(layer, keras.Model):
        model = layer
    else:
        inputs = keras.Input((None, cases.WIDTH))
        model = keras.Model(inputs, layer(inputs))
    path = tmp_path / "model.keras"
    model.save(path)
    assert_close(run(keras.models.load_model(path), x), expected, 1e-6)
    weights = tmp_path / "model.weights.h5"
    model.save_weights(weights)
    if isinstance(layer, keras.Model):
        other = case.build(seed=1)
    else:
        inputs = keras.Input((None, cases.WIDTH))
        other = keras.Model(inputs, case.build(seed=1)(inputs))
    other.load_weights(weights)
    assert_close(run(other, x), expected, 1e-6)


@pytest.mark.parametrize("case", **cases.by_id(ALL))
def test_no_dtype_renames_a_variable(case):
    plain = case.build()
    for dtype in ("mixed_bfloat16", "float16"):
        assert _paths(case.build(dtype=dtype)) == _paths(plain)


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_a_state_is_a_nest_that_any_file_can_hold(case, rng, assert_close):
    """A state leaves as numpy arrays and goes on from them."""
    layer = case.build()
    x = case.inputs(rng, 2, 7)
    _, state = call(layer, x[:, :6], return_state=True)
    expected, _ = step(layer, x[:, 6], state)
    given, _ = step(layer, x[:, 6], tree.map_structure(ek.backend.to_numpy, state))
    assert_close(ek.backend.to_numpy(given), ek.backend.to_numpy(expected), 1e-6)
