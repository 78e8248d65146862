"""Models of transformers, read here under every backend, and written back."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("safetensors")

import ember_keras as ek  # noqa: E402

NAMES = """
llama llama_biases mistral mixtral mamba mamba2 recurrent_gemma qwen3_next rwkv
""".split()


def stored(folder):
    """All tensors of a folder by name."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            found.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return found


def equal(a, b):
    """Whether two folders hold the same tensors, to the bit."""
    a, b = stored(a), stored(b)
    assert sorted(a) == sorted(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name


@pytest.mark.parametrize("name", NAMES)
def test_logits_greedy_tokens_and_the_way_back(name, checkpoints, expected, assert_close, tmp_path):
    model = ek.models.from_pretrained(checkpoints / name)
    theirs = expected(name)
    logits = ek.backend.to_numpy(model(theirs["tokens"].astype("int32")))
    assert_close(logits, theirs["logits"], name="logits")
    prompt = theirs["greedy"][:7]
    np.testing.assert_array_equal(
        model.generate(prompt, max_new_tokens=50, temperature=0), theirs["greedy"]
    )
    ek.models.save_pretrained(model, tmp_path / "saved", max_shard_bytes=4000)
    equal(tmp_path / "saved", checkpoints / name)
    again = ek.models.from_pretrained(tmp_path / "saved")
    assert again.get_config()["blocks"] == model.get_config()["blocks"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_two_bytes_a_number(dtype, checkpoints, expected, assert_close, tmp_path):
    theirs = expected(dtype)
    model = ek.models.from_pretrained(checkpoints / dtype, dtype="float32")
    logits = ek.backend.to_numpy(model(theirs["tokens"].astype("int32")))
    assert_close(logits, theirs["logits"], name="logits")
    ek.models.save_pretrained(model, tmp_path / "from_float32", dtype=dtype)
    equal(tmp_path / "from_float32", checkpoints / dtype)
    half = ek.models.from_pretrained(checkpoints / dtype, dtype=dtype)
    assert {weight.dtype for weight in half.weights} == {dtype}
    ek.models.save_pretrained(half, tmp_path / "kept")
    equal(tmp_path / "kept", checkpoints / dtype)
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["dtype"] == dtype


def test_the_model_is_an_ordinary_one(checkpoints, expected, assert_close, tmp_path):
    model = ek.models.from_pretrained(checkpoints / "mistral")
    assert ek.registry.to_config(model)["type"] == "causal_lm"
    ek.save_model(model, tmp_path / "model.keras")
    again = ek.load_model(tmp_path / "model.keras")
    theirs = expected("mistral")
    logits = ek.backend.to_numpy(again(theirs["tokens"].astype("int32")))
    assert_close(logits, theirs["logits"], name="logits")


@pytest.mark.trains
def test_it_trains(checkpoints):
    model = ek.models.from_pretrained(checkpoints / "llama")
    before = {weight.path: ek.backend.to_numpy(weight) for weight in model.trainable_weights}
    tokens = np.random.default_rng(0).integers(1, 50, (4, 9)).astype("int32")
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(tokens[:, :-1], tokens[:, 1:], epochs=1, verbose=0)
    for weight in model.trainable_weights:
        assert not np.array_equal(ek.backend.to_numpy(weight), before[weight.path]), weight.path


def test_transformers_reads_the_tokenizer(backend, tmp_path):
    if backend != "torch":
        pytest.skip("the file is the same under every backend; reading it needs torch")
    transformers = pytest.importorskip("transformers")
    import tokenizers

    words = tokenizers.models.WordLevel({"[UNK]": 0, "once": 1, "upon": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model = ek.models.CausalLM(vocab_size=3, width=8, blocks=["mamba"], embedding_scale=1.0)
    model.build((None, None))
    ek.models.save_pretrained(model, tmp_path / "saved", tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs("upon once")["input_ids"] == [2, 1]


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_what_is_written(name, checkpoints, expected, backend, tmp_path):
    if backend != "torch":
        pytest.skip("the files are compared to the bit above; reading them needs torch")
    transformers = pytest.importorskip("transformers")
    import torch

    model = ek.models.from_pretrained(checkpoints / name)
    ek.models.save_pretrained(model, tmp_path / "saved")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    tokens = torch.tensor(expected(name)["tokens"])
    with torch.no_grad():
        logits = theirs(tokens, use_cache=False).logits.numpy()
    np.testing.assert_allclose(logits, expected(name)["logits"], rtol=1e-5, atol=1e-5)


def test_an_activation_that_a_convolution_has_no_other_of(checkpoints, tmp_path):
    """In transformers `hidden_act` is that of Gated DeltaNet's short convolution as well."""
    folder = shutil.copytree(checkpoints / "qwen3_next", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    with pytest.raises(ek.models.LoadError, match="`hidden_act` is 'gelu', expected 'silu'"):
        ek.models.from_pretrained(folder)
    model = ek.models.CausalLM(
        17,
        width=8,
        blocks=["gated_delta_net", {"type": "gated_mlp", "gate": "geglu"}],
        embedding_scale=1.0,
    )
    model.build((None, None))
    with pytest.raises(
        ValueError, match="qwen3_next: it cannot say this .*'gelu', expected 'silu'"
    ):
        ek.models.save_pretrained(model, tmp_path / "other")
