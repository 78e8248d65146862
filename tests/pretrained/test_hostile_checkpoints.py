"""Files are not believed: each of these folders is refused, in words, and nothing of it runs."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("safetensors")

from pretrained import hostile  # noqa: E402

import ember_keras as ek  # noqa: E402
from ember_keras.models.pretrained import api, places  # noqa: E402

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path):
    """A sound folder."""
    ek.models.save_pretrained(hostile.small_model(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", hostile.SPOILED)
def test_spoiled_folder(name, folder):
    spoil, words = hostile.SPOILED[name]
    spoil(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ek.models.LoadError, match=words) as caught:
        ek.models.from_pretrained(folder)
    text = str(caught.value)
    assert text.isprintable() and len(text) - len(str(folder)) < 500
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "kilobytes"
    assert not (folder / "opened").exists()


def test_sound_folder(folder):
    model = ek.models.from_pretrained(folder)
    assert model.repeats == 2
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("spoil", [hostile.cut, hostile.replaced("model.norm.weight", np.zeros(8))])
def test_a_file_that_changes_between_its_header_and_its_values(spoil, folder, monkeypatch):
    def fill(*given):
        spoil(folder)
        return places.fill(*given)

    monkeypatch.setattr(api, "fill", fill)
    with pytest.raises(ek.models.LoadError, match="it has changed while it was read"):
        ek.models.from_pretrained(folder)


def test_what_changes_nothing_may_stand(folder):
    equal = hostile.replaced("lm_head.weight", hostile_tensor(folder, "model.embed_tokens.weight"))
    equal(folder)
    hostile.replaced("model.layers.0.self_attn.rotary_emb.inv_freq", np.zeros(2, "f4"))(folder)
    hostile.config(transformers_version="4.0", id2label={}, rope_scaling=None)(folder)
    assert ek.models.from_pretrained(folder).repeats == 2


def hostile_tensor(folder, name):
    """One tensor of a folder."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")[name]


def test_rwkv_names_its_head_otherwise_and_norms_its_embeddings(tmp_path):
    norm = {"type": "layer_norm", "epsilon": 1e-5}
    blocks = ["rwkv4_time_mixer", {"type": "rwkv4_channel_mixer", "hidden_dim": 12}]
    options = {"blocks": blocks, "repeats": 1, "norm": norm}
    with pytest.raises(ValueError, match="rwkv: `embedding_norm` is None"):
        ek.models.save_pretrained(hostile.small_model(**options), tmp_path / "x", family="rwkv")
    model = hostile.small_model(**options, embedding_norm=norm)
    folder = tmp_path / "model"
    ek.models.save_pretrained(model, folder)
    assert ek.models.from_pretrained(folder).blocks[1]["mixer"]["hidden_dim"] == 12
    embedding = hostile_tensor(folder, "rwkv.embeddings.weight")
    hostile.replaced("head.weight", embedding)(folder)
    assert ek.models.from_pretrained(folder).tie_embeddings
    for spoil, words in (
        (hostile.replaced("head.weight", 2 * embedding), "'head.weight' is not the embedding"),
        (hostile.config(rescale_evry=3), "`rescale_evry` is unknown.*'rescale_every'"),
        (
            hostile.replaced("rwkv.blocks.0.attention.time_mix_key", np.zeros(8, "f4")),
            r"time_mix_key' is \(8,\), not \(1, 1, 8\)",
        ),
    ):
        spoil(folder)
        with pytest.raises(ek.models.LoadError, match=words):
            ek.models.from_pretrained(folder)
        hostile.forget("rescale_evry")(folder)


def test_the_older_form_of_rotary_positions(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    scaling = {"type": "linear", "factor": 4.0}
    path.write_text(json.dumps({**config, "rope_theta": 500.0, "rope_scaling": scaling}))
    attention = ek.models.from_pretrained(folder).blocks[0]
    assert attention["rotary_base"] == 500.0 and attention["rotary_scaling"] == {"factor": 4.0}


def test_links_where_they_are_trusted(folder):
    for name in ("config.json", "model.safetensors"):
        hostile.linked(name)(folder)
    assert ek.models.from_pretrained(folder, follow_links=True).repeats == 2


def test_too_many_bytes(folder):
    with pytest.raises(ek.models.LoadError, match="expected at most 100.*larger `max_bytes`"):
        ek.models.from_pretrained(folder, max_bytes=100)


def test_what_is_no_folder(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder.*nothing is fetched"):
        ek.models.from_pretrained("meta-llama/Llama-3.2-1B")
    with pytest.raises(ek.models.LoadError, match="it is a file, expected a folder"):
        ek.models.from_pretrained(folder / "config.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": ["hyena", "gated_mlp"]}, "llama: it has no `hyena`"),
        ({"blocks": ["gated_mlp", "attention"]}, "llama: it cannot say this"),
        ({"repeats": 1, "blocks": ["attention"]}, "llama: its layers are 2 blocks each"),
        ({"embedding_scale": None}, "`embedding_scale` is 2.8284"),
        ({"logit_cap": 5.0}, "`logit_cap` is 5.0"),
        ({"norm": "layer_norm"}, "`norm.type` is 'layer_norm', which can only be 'rms_norm'"),
        (
            {"blocks": [{"type": "attention", "rotary": False}, "gated_mlp"]},
            "`blocks.0..mixer.rotary` is False",
        ),
        (
            {
                "blocks": [
                    {"type": "block", "mixer": "attention", "norm_position": "post"},
                    "gated_mlp",
                ]
            },
            "norm_position` is 'post'",
        ),
    ],
)
def test_a_model_that_no_family_has(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        ek.models.save_pretrained(hostile.small_model(**options), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_default_widths_are_written_as_numbers(tmp_path):
    model = hostile.small_model(blocks=["attention", "gated_mlp"], dropout=0.1)
    ek.models.save_pretrained(model, tmp_path / "model", eos_token_id=3)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["intermediate_size"] == 24 and config["head_dim"] == 2
    assert config["num_key_value_heads"] == 4 and config["eos_token_id"] == 3
    assert ek.models.from_pretrained(tmp_path / "model").blocks[1]["hidden_dim"] == 24


def test_whole_numbers_are_written_as_floats_where_transformers_asks_for_them(tmp_path):
    norm = {"type": "rms_norm", "epsilon": 1}
    model = hostile.small_model(blocks=["attention", "gated_mlp"], norm=norm)
    ek.models.save_pretrained(model, tmp_path / "model")
    assert '"rms_norm_eps": 1.0' in (tmp_path / "model" / "config.json").read_text()
    again = ek.models.from_pretrained(tmp_path / "model")
    assert again.backbone.final_norm.epsilon == 1.0


def test_a_mixture_of_ones_own(tmp_path):
    mixture = {"type": "mixture_of_experts", "num_experts": 3, "z_loss": 0.0}
    model = hostile.small_model(blocks=["attention", mixture], repeats=1)
    ek.models.save_pretrained(model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["model_type"] == "mixtral" and config["intermediate_size"] == 24
    again = ek.models.from_pretrained(tmp_path / "model")
    tokens = np.array([[1, 2, 3, 4]])
    np.testing.assert_allclose(
        ek.backend.to_numpy(again(tokens)), ek.backend.to_numpy(model(tokens)), rtol=1e-5
    )
    name = "model.layers.0.block_sparse_moe.experts.2.w3.weight"
    hostile.without(name)(tmp_path / "model")
    with pytest.raises(ek.models.LoadError, match=f"1 tensor missing: '{name}'"):
        ek.models.from_pretrained(tmp_path / "model")
    mixture["router"] = "sigmoid"
    with pytest.raises(ValueError, match="mixer.router.type` is 'sigmoid'"):
        ek.models.save_pretrained(
            hostile.small_model(blocks=["attention", mixture], repeats=1), tmp_path / "other"
        )


def test_as_another_family(folder, tmp_path):
    model = ek.models.from_pretrained(folder)
    ek.models.save_pretrained(model, tmp_path / "mistral", family="mistral")
    assert '"model_type": "mistral"' in (tmp_path / "mistral" / "config.json").read_text()
    assert ek.models.from_pretrained(tmp_path / "mistral").repeats == 2
    with pytest.raises(ValueError, match="family='gpt2', expected one of llama"):
        ek.models.save_pretrained(model, tmp_path / "x", family="gpt2")


def test_a_folder_that_is_there_is_kept(folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        ek.models.save_pretrained(hostile.small_model(), folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_wrong_arguments(tmp_path):
    with pytest.raises(TypeError, match="expected a CausalLM"):
        ek.models.save_pretrained("model", tmp_path / "x")
    model = ek.models.CausalLM()
    with pytest.raises(ValueError, match="is not built"):
        ek.models.save_pretrained(model, tmp_path / "x")
    with pytest.raises(ValueError, match="dtype='int8', expected one of float32"):
        ek.models.save_pretrained(hostile.small_model(), tmp_path / "x", dtype="int8")
    for options, words in (
        ({"max_shard_bytes": 0}, "max_shard_bytes=0, expected a whole number of at least 1"),
        ({"max_shard_bytes": 1.5}, "max_shard_bytes=1.5, expected a whole number"),
        ({"eos_token_id": 2.5}, "eos_token_id=2.5, expected the number of a token"),
        ({"bos_token_id": "a"}, "bos_token_id='a', expected the number of a token"),
        ({"tokenizer": "x"}, "tokenizer='x', expected a `tokenizers.Tokenizer`"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            ek.models.save_pretrained(hostile.small_model(), tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    from ember_keras.models.pretrained import api

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(api, "_write_json", fail)
    with pytest.raises(OSError, match="no space"):
        ek.models.save_pretrained(hostile.small_model(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE")
def test_full_disk(tmp_path):
    code = f"""
import os, resource, signal
from pretrained import hostile
import ember_keras as ek
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = hostile.small_model()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    ek.models.save_pretrained(model, {str(tmp_path / "model")!r})
except OSError as error:
    print(error)
"""
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert f"Cannot save to {tmp_path / 'model'}: File too large. No file" in done.stdout, done
    assert "Free some space, or save to another disk." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_all_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    synced = []

    def sync(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        synced.append((os.path.basename(path), os.path.isdir(tmp_path / "model")))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("only Linux tells the name of an open file")
    monkeypatch.setattr(os, "fsync", sync)
    ek.models.save_pretrained(hostile.small_model(), tmp_path / "model", max_shard_bytes=2000)
    before = [name for name, there in synced if not there]
    assert set(os.listdir(tmp_path / "model")) < set(before)
    assert before[-1].endswith(".partial") and (tmp_path.name, True) in synced


@pytest.mark.skipif(sys.platform == "win32", reason="what is left is found on POSIX alone")
def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path):
    code = f"""
import os
from pretrained import hostile
import ember_keras as ek
from ember_keras.models.pretrained import api
api._write_json = lambda *given: os.kill(os.getpid(), 9)
ek.models.save_pretrained(hostile.small_model(), {str(tmp_path / "model")!r})
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert [path.name for path in left.iterdir()] == ["model.safetensors"]
    ek.models.save_pretrained(hostile.small_model(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_without_the_packages(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="`safetensors`.*ember-keras.pretrained"):
        ek.models.from_pretrained(folder)
    with pytest.raises(ImportError, match="`tokenizers`.*ember-keras.pretrained"):
        ek.models.load_tokenizer(folder)


@pytest.fixture
def tokenizer():
    """A tokenizer of a few words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "once": 1, "upon": 2, "a": 3, "time": 4}
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    found.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return found


def test_tokenizer_both_ways(tokenizer, tmp_path):
    ek.models.save_pretrained(hostile.small_model(), tmp_path / "model", tokenizer=tokenizer)
    again = ek.models.load_tokenizer(tmp_path / "model")
    assert again.encode("once upon a time").ids == [1, 2, 3, 4]
    assert again.decode([1, 2]) == "once upon"


def test_tokenizers_that_are_refused(tokenizer, folder):
    with pytest.raises(ek.models.LoadError, match="`tokenizer.json` is missing"):
        ek.models.load_tokenizer(folder)
    path = folder / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ek.models.LoadError, match="it has no `model`"):
        ek.models.load_tokenizer(folder)
    path.write_text('{"model": {"type": "WordLevel", "vocab": "/etc/passwd"}}')
    with pytest.raises(ek.models.LoadError, match="it is no tokenizer"):
        ek.models.load_tokenizer(folder)
    path.write_text("[" * 900)
    with pytest.raises(ek.models.LoadError, match="nests 900 levels"):
        ek.models.load_tokenizer(folder)
    path.unlink()
    path.symlink_to(folder / "config.json")
    with pytest.raises(ek.models.LoadError, match="it is a link"):
        ek.models.load_tokenizer(folder)


@pytest.mark.parametrize("characters", ["/////w==", "AAAA", "", "no base64", None, 3])
def test_a_map_of_characters_that_lies(characters, tokenizer, folder):
    """The package reserves what a map says that it is, 4 GiB and more, and panics."""
    data = json.loads(tokenizer.to_str())
    data["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": characters}
    for normalizer in (
        data["normalizer"],
        {"type": "Sequence", "normalizers": [data["normalizer"]]},
    ):
        text = json.dumps({**data, "normalizer": normalizer})
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(ek.models.LoadError, match="no map of characters"):
            ek.models.load_tokenizer(folder)
    data["normalizer"]["precompiled_charsmap"] = "AAAAAA=="  # Of no character.
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert ek.models.load_tokenizer(folder).get_vocab_size() == tokenizer.get_vocab_size()


def test_a_panic_of_the_tokenizers_is_an_error_of_the_file(tokenizer, folder, monkeypatch):
    class Panic(BaseException):
        pass

    def panics(data):
        raise Panic("a bound")

    import tokenizers

    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    broken = type("Tokenizer", (), {"from_buffer": staticmethod(panics)})
    monkeypatch.setattr(tokenizers, "Tokenizer", broken)
    with pytest.raises(ek.models.LoadError, match="it is no tokenizer .a bound"):
        ek.models.load_tokenizer(folder)


def test_options_of_the_model_that_make_no_sense():
    with pytest.raises(ValueError, match="embedding_scale=0.0, expected more than 0"):
        ek.models.CausalLM(embedding_scale=0.0)
    with pytest.raises(ValueError, match="logit_cap=-1.0, expected more than 0"):
        ek.models.CausalLM(logit_cap=-1.0)
    with pytest.raises(ValueError, match="epsilon=0.0, expected more than 0"):
        ek.layers.ZeroCentredRMSNorm(epsilon=0.0)
