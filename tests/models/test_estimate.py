"""What `estimate` says of a model before it runs: counted by hand, and honest about the rest."""

import dataclasses
import math

import numpy as np
import pytest

import ember_keras as ek
from ember_keras.models.abstract import abstract
from ember_keras.models.costs import counted

import keras  # isort: skip - under mlx after ember_keras

WIDTH, TIME, ROWS, VOCABULARY = 8, 20, 3, 32
HEAD = 2 * WIDTH * VOCABULARY


def _flops(*blocks, rows=ROWS, time=TIME):
    model = ek.models.CausalLM(VOCABULARY, WIDTH, list(blocks))
    found = abstract(model, rows, time, None, "sgd", None)
    return counted(found, rows, time)["flops_per_token"] - HEAD


def test_a_dense_model_has_the_operations_of_its_matrices():
    assert _flops("dense") == 2 * WIDTH * WIDTH
    mlp = {"type": "gated_mlp", "hidden_dim": 24}
    assert _flops("dense", mlp) == 2 * WIDTH * WIDTH + 2 * 3 * WIDTH * 24


def _mixture(kind):
    expert = {"type": kind, "hidden_dim": 5, "use_bias": False}
    return {"type": "mixture_of_experts", "num_experts": 4, "expert": expert}


def test_operations_are_those_of_the_mathematics():
    # Four maps, and for each of two heads of 4 the pairs of t and all before it.
    pairs = TIME * (TIME + 1) // 2
    heads = {"type": "attention", "num_heads": 2}
    assert _flops(heads) == 8 * WIDTH**2 + 2 * 2 * (4 + 4) * pairs / TIME
    # The maps of the input, and those of the state once a position.
    lstm = ek.registry.sequence_mixers.build("lstm")
    lstm.build((None, None, WIDTH))
    assert _flops("lstm") == sum(2 * math.prod(w.shape) for w in lstm.weights if len(w.shape) == 2)
    # The router, and two of four experts of two maps.
    assert _flops(_mixture("mlp")) == 2 * WIDTH * 4 + 2 * 2 * 2 * WIDTH * 5
    # Three maps where they are gated, which a kernel may run as one call.
    assert _flops(_mixture("gated_mlp")) == 2 * WIDTH * 4 + 2 * 2 * 3 * WIDTH * 5


def test_a_long_convolution_costs_its_transforms():
    taps = {"type": "fft_conv", "filter": {"type": "explicit", "num_taps": 64}, "gate": False}
    short = {"type": "fft_conv", "filter": {"type": "explicit", "num_taps": 4}, "gate": False}
    size = 2 * TIME - 1
    transform = 2.5 * size * math.log2(size)
    longer = (WIDTH * (2 * ROWS + 1) * transform / ROWS + 3 * size * WIDTH) / TIME
    found = _flops(taps) - _flops(short)
    np.testing.assert_allclose(found, longer - 2 * 4 * WIDTH, rtol=0.01)


@pytest.mark.parametrize("name", sorted(ek.registry.sequence_mixers.names()))
def test_every_mixer_is_counted_and_nothing_of_it_drawn(name):
    model = ek.models.SequenceModel([name])
    found = abstract(model, 1, 4, WIDTH, "sgd", None)
    parts = counted(found, 1, 4)
    assert not model.built
    assert not any(ek.backend.has_value(v) for v in found.model.trainable_variables)
    matrices = [w for w in found.model.trainable_variables if "kernel" in w.path.split("/")[-1]]
    if "experts" not in name:
        assert parts["flops_per_token"] >= sum(2 * math.prod(w.shape) for w in matrices[:1])
    model.build((None, 4, WIDTH))
    assert parts["parameters"] == model.count_params()
    if model.is_causal:
        leaves = [keras.tree.flatten(model.initial_state(rows, 4)) for rows in (1, 2)]
        sizes = [sum(ek.backend.to_numpy(leaf).nbytes for leaf in some) for some in leaves]
        assert parts["state_bytes"] == sizes[1] - sizes[0]
    else:
        assert parts["state_bytes"] is None


def test_the_figures_of_a_training_step():
    model = ek.models.CausalLM(VOCABULARY, WIDTH, ["attention", "gated_mlp"], name="mine")
    found = ek.models.estimate(model, ROWS, TIME)
    assert not model.built
    assert not model.compiled
    model.build((None, None))
    count = model.count_params()
    assert (found.parameters, found.parameter_bytes) == (count, 4 * count)
    assert found.gradient_bytes == 4 * count
    assert 8 * count <= found.optimizer_bytes <= 8 * count + 64  # Two moments, and two scalars.
    assert found.training_flops_per_token == 3 * found.flops_per_token
    assert found.training_peak_bytes > 16 * count + found.activation_bytes - 4 * count
    assert found.inference_peak_bytes > 4 * count + 4 * ROWS * TIME
    told = "compiler" if ek.backend.name() == "jax" else "analytic"
    assert found.sources["training_peak_bytes"] == found.sources["inference_peak_bytes"] == told
    assert found.sources["flops_per_token"] == found.sources["parameters"] == "counted"
    for field in dataclasses.fields(found):
        known = ("batch_size", "length", "sources")
        assert (field.name in found.sources) == (field.name not in known)
    assert f"{count:,}" in str(found)
    assert told in str(found)


def test_decoding_reads_weights_once_a_step_and_each_state():
    model = ek.models.CausalLM(VOCABULARY, WIDTH, ["lru"], tie_embeddings=False)
    model.build((None, None))
    one, many = (ek.models.estimate(model, rows, 4, training=False) for rows in (1, 8))
    table = 4 * VOCABULARY * WIDTH
    read = one.parameter_bytes - table + table / VOCABULARY
    assert one.bytes_per_token == round(read) + one.state_bytes
    assert many.bytes_per_token < one.bytes_per_token / 4 + one.state_bytes
    assert one.training_peak_bytes is None


@pytest.mark.parametrize(
    "name", ["sequence_classifier", "forecaster", "autoencoder", "feature_extractor"]
)
def test_models_of_every_kind(name):
    model = ek.registry.models.build(name, width=WIDTH, blocks=["mlp"])
    found = ek.models.estimate(model, 2, 4, width=3, training=name == "forecaster")
    assert found.flops_per_token > 0
    assert found.inference_peak_bytes > found.parameter_bytes


def test_pooled_attention_sees_fewer_positions():
    whole, pooled = (
        ek.models.estimate(
            ek.models.CausalLM(
                20, width=16, blocks=[{"type": "block", "mixer": "attention", "pool_size": size}]
            ),
            batch_size=1,
            length=64,
            training=ek.backend.capabilities().trains,
        )
        for size in (1, 4)
    )
    assert pooled.flops_per_token < whole.flops_per_token
    assert pooled.state_bytes < whole.state_bytes / 3


def test_what_cannot_be_estimated_says_why():
    model = ek.models.SequenceModel(["mlp"])
    with pytest.raises(ValueError, match="width=None.*Pass width"):
        ek.models.estimate(model, 2, 4)
    with pytest.raises(ValueError, match="length=0"):
        ek.models.estimate(model, 2, 0, width=3)
    with pytest.raises(ValueError, match="batch_size=True"):
        ek.models.estimate(model, True, 4, width=3)
    with pytest.raises(TypeError, match="Sequential"):
        ek.models.estimate(keras.Sequential([keras.layers.Dense(2)]), 2, 4)


def test_summary_shows_it():
    model = ek.models.CausalLM(VOCABULARY, WIDTH, ["mlp"])
    model.build((None, None))
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert not any("flops" in line for line in lines)
    model.summary(batch_size=2, length=4, print_fn=lambda line, **_: lines.append(line))
    assert "2 x 4 positions" in lines[-1] and "flops a token" in lines[-1]
    with pytest.raises(ValueError, match="length=None"):
        model.summary(batch_size=2)
