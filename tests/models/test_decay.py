"""Weight decay is for matrices between features, and for nothing else."""

import keras
import numpy as np
import pytest

import ember_keras as ek

KINDS = ["hyena", "gated_mlp", "mamba", "lru", "rwkv7_time_mixer", "ltc", "fft_conv"]
POLES = ("norm", "filter", "bias", "skip", "decay", "log_", "potential", "/scale")


def _model():
    model = ek.models.CausalLM(16, 8, KINDS)
    model.build((None, 8))
    return model


def test_the_groups_are_all_weights_and_poles_do_not_decay():
    model = _model()
    groups = ek.models.decay_groups(model)
    assert len(groups["decay"]) + len(groups["no_decay"]) == len(model.trainable_variables)
    paths = [v.path for v in groups["decay"]]
    assert [path for path in paths if any(word in path for word in POLES)] == []
    assert [path for path in paths if "gate_up/kernel" in path]


@pytest.mark.trains
def test_an_optimizer_leaves_them_alone():
    model = _model()
    optimizer = keras.optimizers.AdamW(1e-30, weight_decay=0.5e30)
    assert ek.models.exclude_from_decay(optimizer, model) is optimizer
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    groups = ek.models.decay_groups(model)
    before = [[v.numpy() for v in group] for group in groups.values()]
    x = np.ones((1, 4), "int32")
    model.train_on_batch(x, x)
    decayed, kept = (
        [np.allclose(a, v.numpy()) for a, v in zip(old, group, strict=True)]
        for old, group in zip(before, groups.values(), strict=True)
    )
    assert not any(decayed) and all(kept)
    with pytest.raises(ValueError, match="is built, expected one that has not begun"):
        ek.models.exclude_from_decay(optimizer, model)


def test_an_unbuilt_model_has_no_groups():
    with pytest.raises(ValueError, match="which is not built"):
        ek.models.decay_groups(ek.models.CausalLM())
