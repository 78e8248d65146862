"""Law 8: compiled equals eager, in one compilation a shape; and everything trains inside Keras."""

import keras
import numpy as np
import pytest
from keras import ops, tree
from laws import cases
from laws.support import optimized

import ember_keras as ek


@pytest.mark.parametrize("case", **cases.by_id(cases.CAUSAL))
def test_a_compiled_step_equals_an_eager_one_and_compiles_once(case, rng, assert_close):
    layer = case.build()
    x = case.inputs(rng, 2, 6)
    traces = []

    def step(x_t, state):
        traces.append(None)
        return layer.step(x_t, state)

    compiled = ek.backend.compile(step)
    state = eager_state = layer.initial_state(2, 6)
    for t in range(6):
        x_t = ops.convert_to_tensor(x[:, t])
        expected, eager_state = layer.step(x_t, eager_state)
        y, state = compiled(x_t, state)
        assert_close(ek.backend.to_numpy(y), ek.backend.to_numpy(expected), name=f"step {t}")
    if compiled is not step:  # Under numpy and torch nothing is compiled.
        assert len(traces) <= 2, f"{len(traces)} traces of one shape"


@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE))
def test_a_compiled_pass_equals_an_eager_one(case, rng, assert_close):
    layer = case.build()
    x = ops.convert_to_tensor(case.inputs(rng, 2, 9))
    mask = ops.convert_to_tensor(np.arange(9)[None, :] < np.array([[9], [4]]))
    compiled = optimized(lambda x, mask: layer(x, mask=mask))
    y = ek.backend.to_numpy(compiled(x, mask))
    assert_close(y, ek.backend.to_numpy(layer(x, mask=mask)))


@pytest.mark.trains
@pytest.mark.parametrize("case", **cases.by_id(cases.SEQUENCE + cases.CHANNEL))
def test_it_trains_inside_a_keras_model(case, rng):
    """`compile` and `fit` lower the loss, with an uneven last batch."""
    keras.utils.set_random_seed(0)
    layer = getattr(ek.registry, case.kind).build(case.name, **dict(case.options))
    x = case.inputs(rng, 10, 6)
    if isinstance(layer, keras.Model):
        model = layer
    else:
        inputs = keras.Input((None, cases.WIDTH))
        model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    like = model(keras.Input(batch_shape=x.shape, dtype=x.dtype.name))
    y = rng.normal(size=like.shape).astype("float32")
    before = [np.array(w) for w in model.get_weights()]
    model.compile("adam", "mse")
    history = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]
    after = model.get_weights()
    assert all(np.isfinite(w).all() for w in after)
    moved = [np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True)]
    names = [w.path for w in model.weights]
    assert all(moved), f"not trained: {[n for n, m in zip(names, moved, strict=True) if not m]}"
    assert model.predict(x, verbose=0).shape == y.shape
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()


def test_numpy_says_that_it_only_predicts(backend, rng):
    model = ek.models.SequenceRegressor(width=8, blocks=["hyena"])
    x = rng.normal(size=(2, 5, 1)).astype("float32")
    if backend == "numpy":
        model.compile("adam", "mse")
        with pytest.raises(ValueError, match="predicts only"):
            model.fit(x, np.zeros((2, 1)), verbose=0)
    assert model.predict(x, verbose=0).shape == (2, 1)


def test_a_state_is_detached_by_stop_gradient(rng):
    """Truncated back-propagation: the nest goes through `stop_gradient` leaf by leaf."""
    layer = ek.layers.Attention(num_heads=2)
    x = rng.normal(size=(1, 4, 8)).astype("float32")
    _, state = layer(x, return_state=True)
    y, _ = layer(x, state=tree.map_structure(ops.stop_gradient, state), return_state=True)
    assert y.shape == (1, 4, 8)
