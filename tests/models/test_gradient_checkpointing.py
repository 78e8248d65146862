"""Blocks that run again in the backward pass: the same step, the same files, less kept."""

import numpy as np
import pytest

import ember_keras as ek

import keras  # isort: skip - under mlx after ember_keras

D, B, T = 8, 3, 7
MIXTURE = {
    "type": "mixture_of_experts",
    "num_experts": 4,
    "router": {"type": "noisy_top_k"},
}
BALANCED = {**MIXTURE, "router": "sigmoid"}
BLOCKS = {
    "dropout": [{"type": "attention", "num_heads": 2}, "gated_mlp"],
    "named": [{"type": "transformer_block", "dropout": 0.2, "residual": "scaled"}],
    "mixture": ["min_gru", MIXTURE, BALANCED],
}


def _model(name, again, **options):
    options = {"dropout": 0.2, "pad_token": 0, "width": D, **options}
    keras.utils.set_random_seed(1)
    model = ek.models.CausalLM(
        11, blocks=BLOCKS[name], gradient_checkpointing=again, name="lm", **options
    )
    model.build((B, T))
    return model


def _data(rng):
    x = rng.integers(1, 11, (B, T)).astype("int32")
    x[1, 4:] = 0
    return {"x": x, "segment_ids": np.sort(x % 3, axis=1)}, rng.integers(0, 11, (B, T))


def _trained(model, data, steps=2):
    model.compile(
        optimizer=keras.optimizers.SGD(0.5),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(*data, B, steps, verbose=0, shuffle=False).history
    return history, model.get_weights()


@pytest.mark.trains
@pytest.mark.parametrize("name", BLOCKS)
def test_training_is_the_same(name, rng, assert_close):
    data = _data(rng)
    (plain, expected), (again, found) = (
        _trained(_model(name, each), data) for each in (False, True)
    )
    assert set(plain) == set(again)
    for key in plain:
        assert_close(again[key], plain[key], 2e-6, key)
    for at, (have, want) in enumerate(zip(found, expected, strict=True)):
        assert_close(have, want, 5e-6, str(at))


@pytest.mark.trains
def test_a_block_by_itself_runs_again(rng, assert_close):
    x = keras.ops.convert_to_tensor(rng.normal(size=(B, T, D)).astype("float32"))
    found = []
    for again in (False, True):
        keras.utils.set_random_seed(1)
        block = ek.blocks.Block("gated_mlp", dropout=0.3, gradient_checkpointing=again)
        block.build((B, T, D))
        seeds = list(block.non_trainable_variables)
        runs = []
        own = block.mixer.call
        block.mixer.call = lambda *a, own=own, runs=runs, **k: runs.append(1) or own(*a, **k)

        def loss(block=block):
            y, _ = block(x, training=True, return_state=True)
            return keras.ops.sum(keras.ops.square(y))

        value, gradients = ek.backend.value_and_grad_variables(loss, block.trainable_variables)
        found.append([value, *gradients, *seeds])
        if ek.backend.name() != "jax":  # Which runs again what it has traced once.
            assert len(runs) == 1 + again
        ek.backend.to_numpy(block(x, training=False))
    for want, have in zip(*found, strict=True):
        assert_close(ek.backend.to_numpy(have), ek.backend.to_numpy(want), 1e-6)


@pytest.mark.trains
def test_a_loss_counts_once(rng):
    """Layers know losses by identity, which Python gives again to what comes after them."""
    block = ek.blocks.Block(MIXTURE, gradient_checkpointing=True)
    block.build((B, T, D))
    x = keras.ops.convert_to_tensor(rng.normal(size=(B, T, D)).astype("float32"))
    with keras.StatelessScope(collect_losses=True) as scope:
        block(x, training=True)
        assert len(block.losses) == len(scope.losses) == 2
    inner = [each for each in block._flatten_layers(include_self=False) if each._loss_ids]
    assert inner == []


@pytest.mark.parametrize("first", [False, True])
def test_files_are_the_same(first, tmp_path, rng, assert_close):
    data, _ = _data(rng)
    one, other = _model("named", first), _model("named", not first)
    assert [w.path for w in one.weights] == [w.path for w in other.weights]
    one.save(tmp_path / "model.keras")
    again = ek.load_model(tmp_path / "model.keras")
    assert again.gradient_checkpointing is first
    one.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    want = ek.backend.to_numpy(one(data))
    assert_close(ek.backend.to_numpy(again(data)), want, 1e-6)
    assert_close(ek.backend.to_numpy(other(data)), want, 1e-6)


def test_every_model_takes_it():
    for name in ek.registry.models.names():
        model = ek.registry.models.build(name, gradient_checkpointing=True)
        assert ek.registry.to_config(model)["gradient_checkpointing"] is True
        body = getattr(model, "backbone", model)
        assert body.gradient_checkpointing is True


def _kept_by_torch(loss):
    import torch

    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = loss()
    assert kept.requires_grad
    return sum(sizes.values())


def _kept_by_jax(loss, variables):
    import jax

    def pure(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return loss()

    lowered = jax.jit(jax.grad(pure)).lower([each.value for each in variables])
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.trains
def test_less_is_kept(backend, rng):
    if backend not in ("torch", "jax"):
        pytest.skip("only torch and jax say what a step keeps")
    x = keras.ops.convert_to_tensor(rng.normal(size=(8, 64, 16)).astype("float32"))
    kept = []
    for again in (False, True):
        model = ek.models.SequenceModel(["gated_mlp"], 12, gradient_checkpointing=again)
        model.build(x.shape)

        def loss(model=model):
            return keras.ops.mean(keras.ops.square(model(x, training=True)))

        if backend == "torch":
            kept.append(_kept_by_torch(loss))
        else:
            kept.append(_kept_by_jax(loss, model.trainable_variables))
    assert kept[1] < 0.5 * kept[0], kept
