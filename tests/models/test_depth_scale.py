"""Models whose blocks start smaller the more of them there are."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

MIXERS = [
    *(("sequence_mixers", name) for name in ek.registry.sequence_mixers.names()),
    *(("channel_mixers", name) for name in ek.registry.channel_mixers.names()),
]
WITHOUT = {"cfc", "gru", "lstm", "ltc"}


def _streams(depth, **options):
    """The variance of what each block of attention and MLPs gives, at the start."""
    keras.utils.set_random_seed(0)
    names = ["block_0", f"block_{depth - 1}"]
    model = ek.models.FeatureExtractor(
        names, width=16, blocks=["attention", "mlp"], repeats=depth // 2, **options
    )
    x = np.random.default_rng(0).normal(size=(4, 12, 16)).astype("float32")
    return [float(ek.backend.to_numpy(y).var()) for y in model(x).values()]


def test_the_stream_does_not_grow_with_depth():
    first, last = _streams(24)
    scaled_first, scaled_last = _streams(24, depth_scale=True)
    assert last / first > 3
    assert scaled_last / scaled_first < 2
    assert _streams(48, depth_scale=True)[1] < 1.5 * scaled_last


def _weights(name, depth_scale):
    keras.utils.set_random_seed(0)
    model = ek.models.SequenceModel([name], 4, depth_scale=depth_scale, name="body")
    model.build((None, 4, 8))
    return model


@pytest.mark.parametrize(("kind", "name"), MIXERS, ids=[name for _, name in MIXERS])
def test_the_output_weights_of_every_mixer_are_smaller_and_no_others(kind, name):
    if name in WITHOUT:
        with pytest.raises(ValueError, match="no output projection.*depth_scale=False"):
            _weights(name, True)
        return
    plain, scaled = _weights(name, False), _weights(name, True)
    assert [v.path for v in plain.variables] == [v.path for v in scaled.variables]
    smaller = {id(w) for block in scaled.stack for w in block.mixer.output_weights()}
    assert smaller
    for one, other in zip(plain.variables, scaled.variables, strict=True):
        factor = 0.5 if id(other) in smaller else 1.0
        expected = factor * ek.backend.to_numpy(one).astype("float64")
        np.testing.assert_allclose(ek.backend.to_numpy(other), expected, rtol=1e-6)


def test_blocks_without_a_residual_are_left_alone():
    block = {"type": "block", "mixer": "lstm", "residual": "none"}
    model = ek.models.SequenceModel([block, "mlp", "transformer_block"], depth_scale=True)
    model.build((None, 4, 8))
    assert len(model.residual_branches()) == 3


def test_weights_that_are_drawn_later_are_smaller_too():
    keras.utils.set_random_seed(0)
    model = ek.models.SequenceModel(["mlp"], 4, depth_scale=True)
    found = ek.backend.build_unfilled(lambda: model.build((None, 4, 8)))
    for variable in found:
        ek.backend.fill(variable)
    later = ek.backend.to_numpy(model.stack[0].mixer.down.kernel).std()
    plain = ek.backend.to_numpy(_weights("mlp", False).stack[0].mixer.down.kernel).std()
    np.testing.assert_allclose(later, plain / 2, rtol=0.2)


def test_a_file_has_the_option_and_the_weights_as_they_are(tmp_path):
    model = ek.models.CausalLM(9, 8, ["mlp"], 2, depth_scale=True)
    x = np.array([[1, 2, 3]])
    before = ek.backend.to_numpy(model(x))
    model.save(tmp_path / "model.keras")
    loaded = ek.models.load_model(tmp_path / "model.keras")
    assert loaded.depth_scale is True
    assert loaded.get_config() == model.get_config()
    np.testing.assert_allclose(ek.backend.to_numpy(loaded(x)), before, rtol=1e-5, atol=1e-6)
