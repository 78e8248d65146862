"""Irregular time steps of LTC and CfC, and the wirings under them."""

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.backend import to_numpy

WIDTH, TIME = 6, 11
CASES = {
    "ltc": {"wiring": "ncp"},
    "cfc": {"backbone_units": 8},
    "wired": {"wiring": {"type": "ncp", "units": 11}},
    "pure": {"mode": "pure", "wiring": "full"},
}


def mixer_of(name):
    layer = ek.registry.sequence_mixers.build(name if name == "ltc" else "cfc", **CASES[name])
    layer.build((None, None, WIDTH))
    return layer


def inputs_of(rng, batch=2):
    x = rng.normal(size=(batch, TIME, WIDTH)).astype("float32")
    return x, rng.uniform(0.1, 2.0, (batch, TIME)).astype("float32")


@pytest.mark.parametrize("name", CASES)
def test_no_time_steps_are_steps_of_one(name, rng, assert_close):
    layer = mixer_of(name)
    x, deltas = inputs_of(rng)
    ones = to_numpy(layer(x, time_deltas=np.ones_like(deltas)))
    assert_close(ones, to_numpy(layer(x)), 1e-6)
    assert np.abs(to_numpy(layer(x, time_deltas=deltas)) - ones).max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_states_masks_and_segments(name, rng, assert_close):
    layer = mixer_of(name)
    x, deltas = inputs_of(rng)
    whole = to_numpy(layer(x, time_deltas=deltas))
    y, state = layer(x[:, :7], time_deltas=deltas[:, :7], return_state=True)
    assert_close(to_numpy(y), whole[:, :7])
    for t in range(7, TIME):
        y, state = layer.step(x[:, t], state, time_deltas=deltas[:, t])
        assert_close(to_numpy(y), whole[:, t], name=f"step {t}")
    mask = rng.random((2, TIME)) < 0.6
    bad = np.where(mask, deltas, np.nan).astype("float32")
    y = to_numpy(layer(x, time_deltas=bad, mask=mask))
    for row in range(2):
        real = mask[row]
        alone = layer(x[row : row + 1, real], time_deltas=deltas[row : row + 1, real])
        assert_close(y[row, real], to_numpy(alone)[0])
    ids = np.repeat([[0, 3]], [4, TIME - 4], axis=1).repeat(2, axis=0)
    y = to_numpy(layer(x, time_deltas=deltas, segment_ids=ids))
    assert_close(y[:, :4], whole[:, :4])
    assert_close(y[:, 4:], to_numpy(layer(x[:, 4:], time_deltas=deltas[:, 4:])))


def test_a_liquid_neuron_stands_still_where_no_time_passes(rng, assert_close):
    layer = mixer_of("ltc")
    x, deltas = inputs_of(rng)
    y = to_numpy(layer(x, time_deltas=deltas * (np.arange(TIME) < 5)))
    assert_close(y[:, 5:], np.repeat(y[:, 4:5], TIME - 5, axis=1), 1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ("float64", "int32"))
def test_time_steps_of_any_dtype_are_taken(name, dtype, rng, assert_close):
    layer = mixer_of(name)
    x, _ = inputs_of(rng)
    deltas = rng.integers(1, 4, (2, TIME))
    whole = to_numpy(layer(x, time_deltas=deltas.astype("float32")))
    y, state = layer(x[:, :-1], time_deltas=deltas[:, :-1].astype(dtype), return_state=True)
    y_next, _ = layer.step(x[:, -1], state, time_deltas=deltas[:, -1].astype(dtype))
    assert_close(to_numpy(y), whole[:, :-1])
    assert_close(to_numpy(y_next), whole[:, -1])


def test_time_steps_of_another_shape_are_refused(rng):
    x, deltas = inputs_of(rng)
    with pytest.raises(ValueError, match="time_deltas of shape"):
        mixer_of("cfc")(x, time_deltas=deltas[:, :5])


@pytest.mark.parametrize("name", ("full", "random", "ncp"))
def test_a_wiring_is_the_same_every_time_and_another_with_another_seed(name):
    build = ek.registry.wirings.build
    first, again, other = (build(name, seed=seed).draw(5, 4) for seed in (1, 1, 2))
    for attribute in ("sensory", "recurrent"):
        one, two = getattr(first, attribute), getattr(again, attribute)
        np.testing.assert_array_equal(one, two)
        assert set(np.unique(one)) <= {-1, 0, 1}
        assert (one != getattr(other, attribute)).any()
    assert sorted(n for layer in first.layers for n in layer) == list(range(len(first.recurrent)))


def test_the_number_of_synapses_is_as_asked():
    drawn = ek.layers.RandomWiring(units=10, sparsity=0.3, seed=5).draw(8, 4)
    assert np.abs(drawn.recurrent).sum() == 70 and np.abs(drawn.sensory).sum() == 56


@pytest.mark.parametrize("sparsity", (0.0, 0.5, 0.9))
def test_a_neural_circuit_policy_flows_from_inputs_to_motor_neurons(sparsity):
    drawn = ek.layers.NCPWiring(units=30, sparsity=sparsity).draw(7, 8)
    inter, command, motor = (list(layer) for layer in drawn.layers)
    assert (len(inter), len(command), len(motor)) == (14, 8, 8) and motor == list(range(8))
    seen, heard = np.abs(drawn.sensory), np.abs(drawn.recurrent)
    assert not seen[:, motor + command].any() and seen[:, inter].any(axis=0).all()
    assert seen.any(axis=1).all()
    assert not heard[motor].any() and not heard[np.ix_(inter, motor + inter)].any()
    assert heard[np.ix_(inter, command)].any(axis=0).all()
    assert heard[np.ix_(command, motor)].any(axis=0).all()
    assert heard[np.ix_(command, motor)].any(axis=1).all()
    assert heard.max() == 1


def test_explicit_wirings_are_data(rng, assert_close):
    drawn = ek.layers.NCPWiring(units=11).draw(WIDTH, WIDTH)
    config = {
        "type": "explicit",
        "sensory": drawn.sensory.tolist(),
        "recurrent": drawn.recurrent.tolist(),
        "layers": [list(layer) for layer in drawn.layers],
    }
    layer = ek.layers.CfC(wiring={"type": "ncp", "units": 11})
    other = ek.layers.CfC(wiring=config)
    x, _ = inputs_of(rng)
    layer(x), other(x)
    other.set_weights(layer.get_weights())
    assert_close(to_numpy(other(x)), to_numpy(layer(x)), 1e-6)
    again = type(other).from_config(other.get_config())
    assert again.get_config() == other.get_config()


def test_the_outputs_are_the_motor_neurons_in_the_order_of_their_numbers(rng, assert_close):
    """Wherever they stand in the last layer, and beside neurons that are no outputs."""
    x = rng.normal(size=(2, TIME, 2)).astype("float32")
    ones = np.ones((4, 4), int).tolist()
    plain, mixed = (
        ek.layers.CfC(wiring=ek.layers.ExplicitWiring(ones[:2], ones, [[3], last]))
        for last in ([0, 1, 2], [2, 1, 0])
    )
    plain(x), mixed(x)
    turned = []
    for weight in plain.weights:
        value = to_numpy(weight)
        if weight.name.endswith("_1"):  # Of the last layer: four heads of three neurons.
            heads = value.reshape(*value.shape[:-1], 4, 3)[..., ::-1]
            value = heads.reshape(value.shape)
            value = value[::-1] if weight.name.startswith("recurrent") else value
        turned.append(value)
    mixed.set_weights(turned)
    assert to_numpy(mixed(x)).shape == x.shape
    assert_close(to_numpy(mixed(x)), to_numpy(plain(x)), 1e-6)


@pytest.mark.parametrize("mode", ("default", "pure", "no_gate"))
@pytest.mark.parametrize("wiring", (None, "ncp"))
def test_long_times_are_silent_and_finite(mode, wiring, rng):
    layer = ek.layers.CfC(mode=mode, wiring=wiring)
    x, deltas = inputs_of(rng)
    assert np.isfinite(to_numpy(layer(x, time_deltas=1e6 * deltas))).all()


def test_a_long_time_shuts_or_opens_the_gate(rng, assert_close):
    layer = mixer_of("cfc")
    x, _ = inputs_of(rng, batch=32)
    w = {name: to_numpy(layer.part(name)) for name in ("input_0", "bias_0", "heads", "heads_bias")}
    below = 1.7159 * np.tanh(0.666 * (x[:, 0] @ w["input_0"] + w["bias_0"]))
    g, h, slope, offset = np.split(below @ w["heads"] + w["heads_bias"], 4, axis=-1)
    assert (slope > 0).any() and (slope < -0.2).any()
    late = np.exp(np.minimum(0.0, slope * 1000.0 + offset))
    gate = late / (1.0 + np.exp(-np.abs(slope * 1000.0 + offset)))
    expected = np.tanh(g) + gate * (np.tanh(h) - np.tanh(g))
    y = layer(x[:, :1], time_deltas=np.full((32, 1), 1000.0, "float32"))
    assert_close(to_numpy(y)[:, 0], expected)


@pytest.mark.parametrize(
    "build, words",
    (
        (lambda: ek.layers.NCPWiring(units=9).draw(4, 8), "at least 10"),
        (lambda: ek.layers.FullWiring(units=3).draw(4, 8), "units=3 and 8 outputs"),
        (lambda: ek.layers.RandomWiring(sparsity=1.0), "sparsity=1.0"),
        (lambda: ek.layers.RandomWiring(units=0), "units=0"),
        (lambda: ek.layers.ExplicitWiring([[1, 1]], [[1]]), "one number a neuron"),
        (lambda: ek.layers.ExplicitWiring([[1]], [[1]], [[0, 0]]), "each of the 1 neurons once"),
        (lambda: ek.layers.ExplicitWiring([[1]], [[1]]).draw(2, 1), "received 2 inputs"),
        (
            lambda: ek.layers.CfC(
                wiring=ek.layers.ExplicitWiring([[1] * 3] * 2, [[1] * 3] * 3, [[0, 1], [2]])
            ).build((None, None, 2)),
            r"2 outputs and a last layer of the neurons \[2\]; expected .* 0 to 1",
        ),
        (lambda: ek.layers.LTC(ode_unfolds=0), "ode_unfolds=0"),
        (lambda: ek.layers.CfC(mode="other"), "mode='other'"),
        (lambda: ek.layers.CfC(activation="other"), "activation='other'"),
        (lambda: ek.layers.CfC(backbone_units=0), "backbone_units=0"),
        (lambda: ek.layers.SLSTM(num_heads=3).build((None, None, 8)), "heads do not divide"),
    ),
)
def test_what_cannot_work_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
