"""What blocks compute beside the laws, and lists of blocks with repeats in them."""

import numpy as np
import pytest

import ember_keras as ek

WIDTH = 8


def _run(layer, x, **options):
    return ek.backend.to_numpy(layer(x, **options))


def _like(block, other):
    """`block`, built, with the weights of `other` where it has the same."""
    values = {w.path.partition("/")[2]: w.numpy() for w in other.weights}
    for weight in block.weights:
        path = weight.path.partition("/")[2]
        if path in values:
            weight.assign(values[path])
    return block


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 5, WIDTH)).astype("float32")


def test_a_scaled_residual_starts_as_weights_scaled_by_depth_do(x, assert_close):
    scaled = ek.blocks.Block("hyena", residual="scaled", residual_scale=16**-0.5)
    plain = ek.blocks.Block("hyena")
    for block in (scaled, plain):
        block.build(x.shape)
    _like(plain, scaled)
    last = plain.mixer.output_projection.kernel
    last.assign(ek.backend.to_numpy(last) * 16**-0.5)
    assert_close(_run(scaled, x), _run(plain, x), 1e-5)


def test_residuals_are_their_equations(x, assert_close):
    plain = ek.blocks.Block("mlp")
    f = _run(plain, x) - x
    for residual in ("scaled", "gated", "none"):
        block = ek.blocks.Block("mlp", residual=residual, residual_scale=0.3)
        block.build(x.shape)
        y = _run(_like(block, plain), x)
        if residual == "gated":
            f_here = f / (1 + np.exp(-_gate(block, x)))
            assert_close(y, x + f_here)
        else:
            assert_close(y, {"scaled": x + 0.3 * f, "none": f}[residual])


def _gate(block, x):
    kernel, bias = (ek.backend.to_numpy(w) for w in block.gate.weights)
    return x @ kernel + bias


def test_stochastic_depth_drops_whole_rows_in_training(rng):
    x = rng.normal(size=(64, 3, WIDTH)).astype("float32")
    block = ek.blocks.Block("mlp", stochastic_depth=0.5)
    f = _run(block, x) - x
    g = _run(block, x, training=True) - x
    kept = np.abs(g).max(axis=(1, 2)) > 0
    assert 10 < kept.sum() < 54
    np.testing.assert_allclose(g[kept], 2 * f[kept], rtol=1e-4, atol=1e-5)


def test_named_blocks_are_configurations_of_block(x, assert_close):
    named = ek.blocks.TransformerBlock({"type": "attention", "num_heads": 2})
    plain = [ek.blocks.Block({"type": "attention", "num_heads": 2}), ek.blocks.Block("gated_mlp")]
    y = _run(named, x)
    expected = x
    for own, block in zip(named.stack, plain, strict=True):
        block.build(x.shape)
        block.set_weights(own.get_weights())
        expected = block(expected)
    assert_close(y, ek.backend.to_numpy(expected), 1e-6)


def test_parallel_mixers_are_the_mean_of_their_normed_outputs(x, assert_close):
    block = ek.blocks.HybridBlock(["lru", "lstm"], channel_mixer=None)
    y = _run(block, x)
    (time,) = block.stack
    normed = time.norm(x)
    outputs = [ek.backend.to_numpy(mixer(normed)) for mixer in time.mixer.mixers]
    scaled = [o / np.sqrt(np.mean(o**2, axis=-1, keepdims=True) + 1e-6) for o in outputs]
    assert_close(y, x + np.mean(scaled, axis=0))


NESTED = """\
type: sequence_model
blocks:
  - type: repeat
    times: 2
    blocks:
      - lru
      - type: repeat
        times: 3
        blocks:
          - dense
      - gated_mlp
  - attention
norm: layer_norm
dropout: 0.5
"""


def test_a_nested_list_is_spread_out_and_written_back(x):
    model = ek.registry.models.build(ek.config.from_yaml(NESTED))
    assert ek.config.to_yaml(ek.registry.to_config(model)) == NESTED
    once = ["LRU", "DenseMixer", "DenseMixer", "DenseMixer", "GatedMLP"]
    mixers = [type(block.mixer).__name__ for block in model.stack]
    assert mixers == [*once, *once, "Attention"]
    assert {block.dropout for block in model.stack} == {0.5}
    assert {type(block.norm).__name__ for block in model.stack} == {"LayerNormalization"}
    model.build(x.shape)
    again = type(model).from_config(model.get_config())
    again.build(x.shape)
    assert [w.path.partition("/")[2] for w in again.weights] == [
        w.path.partition("/")[2] for w in model.weights
    ]


def _repeat(times, blocks):
    return {"type": "repeat", "times": times, "blocks": blocks}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ek.blocks.Block(residual="sum"), "expected one of 'plain'"),
        (lambda: ek.blocks.Block(stochastic_depth=1.0), "stochastic_depth=1.0, expected"),
        (lambda: ek.blocks.Block(stochastic_depth=0.1, residual="none"), "nothing left"),
        (lambda: ek.blocks.HybridBlock([]), "expected a list of at least one"),
        (lambda: ek.blocks.HybridBlock(["mlp"]), "mlp"),
        (lambda: ek.blocks.Repeat(0), "times=0, expected at least 1"),
        (lambda: ek.blocks.Repeat(2, [ek.layers.MLP()]), "a layer stands once"),
        (lambda: ek.models.SequenceModel([_repeat(0, ["mlp"])]), "times=0, expected at least 1"),
        (lambda: ek.models.SequenceModel([_repeat(2, [])]), r"blocks=\[\], expected a list"),
        (lambda: ek.models.SequenceModel([_repeat(2, [ek.layers.MLP()])]), "stands once"),
        (lambda: ek.models.SequenceModel([_repeat(200, ["mlp"])], 100), "20000 blocks"),
        (lambda: ek.models.SequenceModel([{"type": "repeat", "time": 3}]), "Did you mean 'times'"),
    ],
)
def test_what_cannot_be_built_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm", "zero_centred_rms_norm"])
@pytest.mark.parametrize("epsilon", ["x", -1, float("nan"), 10**400, True])
def test_an_epsilon_that_is_no_number_is_refused(name, epsilon):
    norm = {"type": name, "epsilon": epsilon}
    for build in (
        lambda: ek.blocks.Block("mlp", norm=norm),
        lambda: ek.layers.Attention(4, head_norm=norm),
        lambda: ek.models.CausalLM(8, 8, norm=norm),
        lambda: ek.models.CausalLM(8, 8, embedding_norm=norm),
    ):
        with pytest.raises((TypeError, ValueError), match="epsilon"):
            build()


def test_numbers_of_numpy_are_an_epsilon():
    for epsilon in (np.float32(1e-5), np.float64(1e-5), 0):
        assert ek.blocks.Block("mlp", norm={"type": "rms_norm", "epsilon": epsilon}).norm


def test_a_number_that_no_float_holds_is_refused():
    with pytest.raises(ValueError, match="embedding_scale=1000.*expected a finite number"):
        ek.models.CausalLM(8, 8, embedding_scale=10**400)
