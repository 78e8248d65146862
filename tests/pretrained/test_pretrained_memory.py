"""Loading takes little more memory than the checkpoint has bytes: each run in its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ember_keras.config import environment

pytest.importorskip("safetensors")

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says it"),
]


def write_llama(folder, width, layers, dtype):
    """A Llama of zeros, a shard a layer: one third is the embedding and another the head."""
    from safetensors.numpy import save_file

    folder.mkdir()
    hidden = 3 * width
    words = (4 * width + 3 * hidden) * layers
    shapes = {
        **{f"self_attn.{name}_proj": (width, width) for name in "qkvo"},
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    places = {}

    def save(file, named):
        zeros = {f"{name}.weight": np.zeros(shape, dtype) for name, shape in named.items()}
        save_file(zeros, folder / file)
        places.update(dict.fromkeys(zeros, file))

    save("outer.safetensors", {"model.embed_tokens": (words, width), "model.norm": (width,)})
    save("head.safetensors", {"lm_head": (words, width)})
    for i in range(layers):
        layer = {f"model.layers.{i}.{name}": shape for name, shape in shapes.items()}
        save(f"layer{i}.safetensors", layer)
    config = {
        "model_type": "llama",
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    index = {"weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small and a large checkpoint of each dtype."""
    import ml_dtypes

    folder = tmp_path_factory.mktemp("checkpoints")
    for name, dtype, layers in [("float32", "float32", 4), ("bfloat16", ml_dtypes.bfloat16, 8)]:
        (folder / name).mkdir()
        write_llama(folder / name / "small", 64, 2, np.dtype(dtype))
        write_llama(folder / name / "large", 512, layers, np.dtype(dtype))
    return folder


@pytest.mark.parametrize("library", environment.BACKENDS)
def test_peak_while_loading(library, folder):
    worker = Path(__file__).with_name("memory_worker.py")
    # The default of glibc holds on to some of what was freed, and that counts as well.
    variables = {**os.environ, "KERAS_BACKEND": library}
    command = [sys.executable, worker, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    found = [line.split() for line in run.stdout.splitlines()]
    assert [(stored, dtype) for stored, dtype, _, _ in found] == [
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float32"),
    ]
    assert min(int(size) for _, _, size, _ in found) > 150_000_000
    assert max(float(ratio) for *_, ratio in found) < 1.3, f"{library}\n{run.stdout}"
