"""The wrapper that reads in both directions."""

import numpy as np
import pytest

import ember_keras as ek


@pytest.mark.parametrize("merge", ("sum", "concat"))
def test_it_is_two_passes(merge, rng, assert_close):
    mixer = ek.layers.Bidirectional("min_gru", merge=merge)
    x = rng.normal(size=(2, 7, 8)).astype("float32")
    y = ek.backend.to_numpy(mixer(x))
    ahead = ek.backend.to_numpy(mixer.mixer(x))
    back = ek.backend.to_numpy(mixer.backward(x[:, ::-1].copy()))[:, ::-1]
    if merge == "sum":
        expected = ahead + back
    else:
        kernel = ek.backend.to_numpy(mixer.output_projection.kernel)
        expected = np.concatenate([ahead, back], axis=-1) @ kernel
    assert_close(y, expected, 1e-5)


def test_a_mixer_that_is_bidirectional_itself_is_refused():
    with pytest.raises(ValueError, match="without the wrapper"):
        ek.layers.Bidirectional({"type": "attention", "causal": False})


def test_a_block_takes_it_from_a_configuration():
    config = {"type": "bidirectional", "mixer": "rwkv6_time_mixer", "merge": "concat"}
    model = ek.models.SequenceClassifier(width=8, blocks=[config, "mlp"])
    assert ek.registry.to_config(model)["blocks"][0] == config
