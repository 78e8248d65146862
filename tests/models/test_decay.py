"""Weight decay is for matrices between features, and for nothing else."""

import re

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

KINDS = ["hyena", "gated_mlp", "mamba", "lru", "rwkv7_time_mixer", "ltc", "fft_conv"]
EVERY = [
    *(name for name in ek.registry.sequence_mixers.names() if name != "bidirectional"),
    *ek.registry.channel_mixers.names(),
    {"type": "mixture_of_experts", "experts": [{"type": "mlp", "use_bias": True}] * 2},
]
POLES = ("norm", "filter", "bias", "skip", "log_", "potential", "/scale", "midpoint", "conductance")


def _model(kinds):
    model = ek.models.CausalLM(16, 8, kinds)
    model.build((None, 8))
    return model


def test_the_groups_are_all_weights_and_poles_do_not_decay():
    model = _model(EVERY)
    groups = ek.models.decay_groups(model)
    assert len(groups["decay"]) + len(groups["no_decay"]) == len(model.trainable_variables)
    paths = [v.path for v in groups["decay"]]
    assert [path for path in paths if any(word in path for word in POLES)] == []
    assert [path for path in paths if re.search("decay(?!/kernel)", path)] == []
    assert [path for path in paths if "gate_up/kernel" in path]


@pytest.mark.trains
def test_an_optimizer_leaves_them_alone():
    model = _model(KINDS)
    optimizer = keras.optimizers.SGD(1e-6, weight_decay=1e5)
    assert ek.models.exclude_from_decay(optimizer, model) is optimizer
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    groups = ek.models.decay_groups(model)
    before = {name: [v.numpy() for v in group] for name, group in groups.items()}
    x = np.ones((1, 4), "int32")
    model.train_on_batch(x, x)
    for name, share in (("decay", 0.9), ("no_decay", 1.0)):
        for old, variable in zip(before[name], groups[name], strict=True):
            np.testing.assert_allclose(variable.numpy(), share * old, atol=1e-3)
    with pytest.raises(ValueError, match="is built, expected one that has not begun"):
        ek.models.exclude_from_decay(optimizer, model)


def test_an_unbuilt_model_has_no_groups():
    with pytest.raises(ValueError, match="which is not built"):
        ek.models.decay_groups(ek.models.CausalLM())
