"""Folders that no one should believe: a small sound one, and the ways to spoil it."""

import json
import os
import pickle
import struct

import numpy as np

import ember_keras as ek


def small_model(**options):
    """A model that is written as Llama."""
    arguments = {
        "vocab_size": 11,
        "width": 8,
        "blocks": [{"type": "attention", "num_heads": 2}, {"type": "gated_mlp", "hidden_dim": 6}],
        "repeats": 2,
        "embedding_scale": 1.0,
    }
    model = ek.models.CausalLM(**{**arguments, **options})
    model.build((None, None))
    return model


def raw(path, header, data=b"", length=None):
    """Writes a safetensors file of any header, with a length that may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def parse(path):
    """The header and the data of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def header(change):
    """A spoiler that changes the header of the weights."""

    def spoil(folder):
        path = folder / "model.safetensors"
        found, data = parse(path)
        raw(path, change(found) or found, data)

    return spoil


def config(**keys):
    """A spoiler that sets keys of `config.json`."""

    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return spoil


def forget(*keys):
    """A spoiler that removes keys of `config.json`."""

    def spoil(folder):
        path = folder / "config.json"
        kept = {k: v for k, v in json.loads(path.read_text()).items() if k not in keys}
        path.write_text(json.dumps(kept))

    return spoil


def write(name, data):
    """A spoiler that writes a file."""
    return lambda folder: (folder / name).write_bytes(data)


def indexed(mapped):
    """A spoiler that puts an index in the place of the one file."""

    def spoil(folder):
        os.rename(folder / "model.safetensors", folder / "model-00001.safetensors")
        found, _ = parse(folder / "model-00001.safetensors")
        names = {name: "model-00001.safetensors" for name in found if name != "__metadata__"}
        index = {"weight_map": {**names, **mapped}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def linked(name):
    """A spoiler that puts a link in the place of a file."""

    def spoil(folder):
        os.rename(folder / name, folder.parent / name)
        os.symlink(folder.parent / name, folder / name)

    return spoil


def then(*spoilers):
    """Several spoilers, one after another."""

    def spoil(folder):
        for each in spoilers:
            each(folder)

    return spoil


def only_pickle(folder):
    """Leaves a pickle in the place of the weights, which would make a file if it were opened."""
    os.remove(folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "opened")))


class Bomb:
    """What a pickle can do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def moved(found, by):
    """Moves the offsets of the last tensor."""
    last = max((name for name in found if name != "__metadata__"), key=_start(found))
    found[last]["data_offsets"] = [at + by for at in found[last]["data_offsets"]]


def _start(found):
    return lambda name: found[name]["data_offsets"][0]


FIRST = "model.embed_tokens.weight"


def reshaped(shape):
    """Gives the first tensor another shape."""
    return header(lambda found: found[FIRST].update(shape=shape))


def without(name):
    """Removes a tensor, and its bytes."""

    def spoil(folder):
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        kept = {key: value for key, value in load_file(path).items() if key != name}
        save_file(kept, path)

    return spoil


def replaced(name, value):
    """Adds or replaces a tensor."""

    def spoil(folder):
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        save_file({**load_file(path), name: value}, path)

    return spoil


def twice(folder):
    """Names a tensor twice in the header."""
    path = folder / "model.safetensors"
    found, data = parse(path)
    text = json.dumps(found)
    part = json.dumps({FIRST: found[FIRST]})[1:-1]
    raw(path, (text[:-1] + ", " + part + "}").encode(), data)


def cut(folder):
    """Cuts the weights short."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


DOWN = "model.layers.1.mlp.down_proj.weight"
SPOILED = {
    "offsets beyond the file": (header(lambda h: moved(h, 1 << 40)), "no valid safetensors"),
    "tensors that overlap": (header(lambda h: moved(h, -4)), "no valid safetensors"),
    "a gap between tensors": (header(lambda h: moved(h, 4)), "no valid safetensors"),
    "a shape of petabytes": (reshaped([1 << 50, 1 << 10]), "no valid safetensors"),
    "a shape that overflows": (reshaped([1 << 63, 1 << 63]), "no valid safetensors"),
    "a negative shape": (reshaped([-11, -8]), "no valid safetensors"),
    "a shape of the same size": (reshaped([8, 11]), r"embed_tokens.weight' is \(8, 11\), not"),
    "a header of exabytes": (
        lambda f: raw(f / "model.safetensors", b"{}", b"", 1 << 60),
        "declares a header of 1,152,921,504,606,846,976 bytes",
    ),
    "a deep header": (
        lambda f: raw(f / "model.safetensors", b"[" * 5000),
        r"nests 5000 levels.*No checkpoint of a model is that deep",
    ),
    "a header that is no JSON": (lambda f: raw(f / "model.safetensors", b"{x}"), "not valid JSON"),
    "a tensor named twice": (twice, "stands twice"),
    "a dtype of quantized weights": (
        then(replaced("q", np.zeros(4, "int8"))),
        "dtype I8, expected one of F64, F32, F16, BF16",
    ),
    "a file cut short": (cut, "no valid safetensors"),
    "an empty file": (write("model.safetensors", b""), "has 0 bytes"),
    "a pickle by another name": (write("model.safetensors", b"\x80\x04" + b"." * 40), "a pickle"),
    "a zip archive by another name": (write("model.safetensors", b"PK\x03\x04" * 9), "zip archive"),
    "a pointer of Git LFS": (
        write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "a pickle alone": (only_pickle, "`pytorch_model.bin` is a pickle"),
    "a tensor that is missing": (without(DOWN), f"1 tensor missing: '{DOWN}'"),
    "a tensor too many": (replaced("extra.weight", np.zeros(3, "f4")), "no place for: 'extra.w"),
    "a tensor of another shape": (
        replaced(DOWN, np.zeros((8, 5), "f4")),
        r"'model.layers.1.mlp.down_proj.weight' is \(8, 5\), not \(8, 6\)",
    ),
    "a tied head of its own": (
        replaced("lm_head.weight", np.ones((11, 8), "f4")),
        "is not the embedding",
    ),
    "an index that leaves the folder": (indexed({DOWN: "../other.safetensors"}), "plain name"),
    "an index with an absolute path": (indexed({DOWN: "/etc/x.safetensors"}), "plain name"),
    "an index that names no safetensors": (indexed({DOWN: "config.json"}), "plain name"),
    "an index with a number": (indexed({DOWN: 3}), "plain name"),
    "an index that names a missing file": (indexed({"a": "b.safetensors"}), "`b.safetensors` is m"),
    "an index that names a missing tensor": (
        indexed({"a": "model-00001.safetensors"}),
        "'a' is in no file",
    ),
    "an index of too many files": (
        indexed({f"t{i}": f"m{i}.safetensors" for i in range(600)}),
        "names 601 files",
    ),
    "an index and a file": (
        write("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}'),
        "it has both",
    ),
    "linked weights": (linked("model.safetensors"), "it is a link.*follow_links=True"),
    "a linked configuration": (linked("config.json"), "it is a link.*follow_links=True"),
    "a pipe": (
        then(lambda f: os.remove(f / "config.json"), lambda f: os.mkfifo(f / "config.json")),
        "not a regular file",
    ),
    "no configuration": (lambda f: os.remove(f / "config.json"), "`config.json` is missing"),
    "a deep configuration": (
        write("config.json", b"[" * 9999),
        r"nests 9999 levels.*No checkpoint of a model is that deep",
    ),
    "a configuration that is a list": (write("config.json", b"[]"), "holds a list, expected"),
    "a long configuration": (write("config.json", b" " * (17 << 20)), "17,825,792 bytes, expected"),
    "a key that stands twice": (write("config.json", b'{"a": 1, "a": 2}'), "'a' stands twice"),
    "an unknown family": (config(model_type="gpt2"), "'gpt2', expected one of llama, mistral"),
    "a family that is no name": (config(model_type=["llama"]), r"\['llama'\], expected one of"),
    "another head": (config(architectures=["LlamaForTokenClassification"]), "`architectures` is"),
    "code of its own": (config(auto_map={"AutoModel": "x.Y"}), "`auto_map` says that code"),
    "quantized weights": (config(quantization_config={}), "`quantization_config` says"),
    "an unknown key": (config(hidden_sizes=3), "`hidden_sizes` is unknown.*'hidden_size'"),
    "an unknown activation": (config(hidden_act="relu2"), "`hidden_act` is 'relu2', expected one"),
    "dropout in attention": (config(attention_dropout=0.1), "`attention_dropout` is 0.1, expected"),
    "positions that grow with the length": (
        config(rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
        "`rope_type` is 'dynamic', expected one of default, linear, llama3",
    ),
    "an unknown key of the positions": (
        config(rope_parameters={"rope_type": "default", "beta_fast": 2.0}),
        "the unknown key `beta_fast`",
    ),
    "positions said twice": (
        config(rope_scaling={"type": "linear", "factor": 2.0}),
        "`rope_type` 'default', beside 'linear'",
    ),
    "positions of no number": (
        config(rope_parameters={"rope_theta": "NaN"}),
        "`rope_theta` is 'NaN', expected a number above 0",
    ),
    "an epsilon that no float holds": (
        config(rms_norm_eps=10**400),
        r"config.json: `rms_norm_eps` is 10+.*, expected a number above 0, at most 1.8e\+308",
    ),
    "positions that no float holds": (
        config(rope_parameters={"rope_type": "default", "rope_theta": 10**400}),
        r"config.json: `rope_theta` is 10+.*, expected a number above 0, at most 1.8e\+308",
    ),
    "positions that are not a number": (
        config(rope_scaling={"rope_theta": float("nan")}, rope_parameters=None),
        "`rope_theta` is nan, expected a number above 0",
    ),
    "a width of megabytes": (config(hidden_size="x" * (9 << 20)), r"`hidden_size` is 'xx.*\.\.\.x"),
    "a width of many digits": (config(hidden_size=10**4000), r"`hidden_size` is 100.*\.\.\.00"),
    "a key that clears the screen": (config(**{"\x1b[2J": 1}), r"the key `\\x1b\[2J` is unknown"),
    "a key that is half a character": (config(**{"\ud800": 1}), r"the key `\\ud800` is unknown"),
    "a key of megabytes": (config(**{"x" * (9 << 20): 1}), r"the key `x+\.\.\.x+` is unknown"),
    "a key of the positions that clears the screen": (
        config(rope_parameters={"rope_type": "default", "rope_theta": 1.0, "\x1b[2J": 1}),
        r"the unknown key `\\x1b\[2J`",
    ),
    "a family that clears the screen": (config(model_type="\x1b[2J"), r"is '\\x1b\[2J', expected"),
    "heads of megabytes": (config(architectures=["x" * (9 << 20)]), r"is \['x.*x'\], expected"),
    "a tensor that clears the screen": (
        replaced("\x1b[2J", np.zeros(3, "f4")),
        r"no place for: '\\x1b\[2J'",
    ),
    "a pickle that clears the screen": (
        then(lambda f: os.remove(f / "model.safetensors"), write("\x1b[2J.bin", b"")),
        r"`\\x1b\[2J.bin` is a pickle",
    ),
    "a vocabulary of billions": (config(vocab_size=1 << 40), "`vocab_size` is 1099511627776, exp"),
    "a large vocabulary": (config(vocab_size=1 << 24), r"is \(11, 8\), not \(16777216, 8\)"),
    "layers without end": (config(num_hidden_layers=1 << 30), "`num_hidden_layers` is 1073741824"),
    "many layers": (
        config(num_hidden_layers=4000),
        "asks for 8,000 blocks and experts, and the files hold 20 t",
    ),
    "experts without end": (
        then(
            forget("attention_bias", "mlp_bias"),
            config(
                model_type="mixtral",
                architectures=["MixtralForCausalLM"],
                num_local_experts=1 << 20,
            ),
        ),
        "asks for 2,097,156 blocks and experts",
    ),
    "a negative width": (config(hidden_size=-8), "`hidden_size` is -8, expected"),
    "a width that is true": (config(hidden_size=True), "`hidden_size` is True, expected"),
    "a width that is a word": (config(hidden_size="8"), "`hidden_size` is '8', expected"),
    "heads that do not divide": (config(num_key_value_heads=5), "no such model can be built"),
    "pairs that are not whole": (config(head_dim=3), "`head_dim` is 3, .* even number"),
    "an epsilon without end": (
        then(
            lambda f: (f / "config.json").write_text(
                (f / "config.json")
                .read_text()
                .replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": Infinity')
            )
        ),
        "`rms_norm_eps` is inf, expected a number above 0",
    ),
}
